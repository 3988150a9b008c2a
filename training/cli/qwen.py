"""``train qwen``: tuning of the model that is asked in words."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tator_ml import jobs
from tator_ml.cli.jobs import follow
from tator_ml.cli.qwen import figures_table
from tator_ml.cli.serving import Home, read_settings
from tator_ml.jobs.connection import reached
from tator_ml.vlm.registry import qwen_registry
from tator_sdk.cli.options import EITHER_SPELLING, with_request
from tator_sdk.requests import QwenTraining
from tator_sdk.settings import Settings
from training.cli.train import TrainError
from training.cli.working import INTERRUPTED, Detach, DryRun, Here, Verbose, foreground, worker_answers

if TYPE_CHECKING:
    from training.samples import Samples

ALSO = {"project": ["-p"], "device": ["device-override"], "base": ["model-id"]}
SECTIONS = {
    "project": "What is learned from",
    "base": "Model and adapter",
    "label": "What it is called and how it is asked",
    "points": "Samples",
    "epochs": "Optimisation",
    "patience": "Measuring, and when it is taken",
}
TIMEOUT_SECONDS = 7 * 24 * 3600


def register(train: typer.Typer) -> None:
    """Add the verb to those that train."""
    train.command("qwen", context_settings=EITHER_SPELLING)(qwen)


@with_request(QwenTraining, also=ALSO, sections=SECTIONS)
def qwen(
    request: QwenTraining,
    here: Here = False,
    detach: Detach = False,
    dry_run: DryRun = False,
    verbose: Verbose = False,
    home: Home = None,
) -> None:
    """Tune a Qwen-VL on your own labels, so that asking in words finds what you label.

    By default a LoRA adapter is learned; --method qlora holds the base in 4 bits. The result becomes the project's
    model only if it is better than the active one on the same held-out pictures. A worker does it where one runs
    (`tator up`), else this process. Stopped or killed, it goes on from its last checkpoint: a worker by itself, and
    here when the same command is given again.

    Example: tator train qwen --project 3 --context "Seen from a drone."

    Example: tator train qwen --project 3 --method qlora --detach

    Example: tator train qwen --dataset data/cars --base models/Qwen3-VL-4B-Instruct --label cars

    Example: tator train qwen --dataset cars.zip --dry-run
    """
    settings, console = read_settings(home=home), Console(highlight=False)
    if detach and (here or dry_run):
        raise TrainError("--detach hands the training to a worker: leave --here and --dry-run out.")
    request = _at_its_place(request)
    if dry_run:
        _preview(request, settings, console)
        return
    if detach:
        record = _start(request, settings)
        typer.echo(record.id)
        typer.echo(f"`tator jobs log --follow {record.id}` shows how it goes.", err=True)
        return
    if not here and worker_answers(settings, console):
        record = follow(settings, _start(request, settings).id, console)
        if record.status != "done" or record.result is None:
            raise typer.Exit(1 if record.over else INTERRUPTED)
        result = record.result
    else:
        result = _in_this_process(request, settings, console, verbose)
    _show(result, request, settings, console)


def _at_its_place(request: QwenTraining) -> QwenTraining:
    """The request with a path that means the same to a worker, which stands in another folder."""
    given = request.dataset and Path(request.dataset).expanduser()
    base = request.base and Path(request.base).expanduser()
    changes: dict[str, Any] = {}
    if given and given.exists():
        changes["dataset"] = str(given.absolute())
    if base and base.is_dir():
        changes["base"] = str(base.absolute())
    return request.model_copy(update=changes)


def _start(request: QwenTraining, settings: Settings) -> jobs.JobRecord:
    """Start the job, or find the one that trains the same.

    Raises:
        TrainError: another training of the project runs or waits.
    """
    wanted = request.model_dump(mode="json")
    project = request.project
    name = f"Qwen of project {project}" if project else f"Qwen on {Path(str(request.dataset)).name}"
    unique = f"qwen:{project or request.dataset}"
    with reached(settings) as connection:
        for one in jobs.JobRecords(connection).list(project):
            mine = (one.request or {}).get("dataset") == request.dataset
            if one.kind == "qwen" and not one.over and mine and one.request != wanted:
                raise TrainError(
                    f"Another training of the {name} with other settings is not over; `tator jobs cancel {one.id}` "
                    "ends it, then start yours again."
                )
    return jobs.start(
        settings, "qwen", wanted, project=project, title=f"tune the {name}", unique=unique,
        timeout_seconds=TIMEOUT_SECONDS,
    )  # fmt: skip


def _in_this_process(request: QwenTraining, settings: Settings, console: Console, verbose: bool) -> dict[str, Any]:
    from training.qwen.job import tune

    digest = hashlib.sha256(request.model_dump_json().encode()).hexdigest()[:8]
    stopped = "Stopped; the same command goes on from its last checkpoint."
    with foreground(settings, console, verbose, f"qwen-here-{digest}", stopped) as job:
        result = tune(request, settings, job)
    return result


def _preview(request: QwenTraining, settings: Settings, console: Console) -> None:
    from training.qwen.base import MOST_ASPECT
    from training.source import open_samples

    with (
        foreground(settings, console, False, "qwen-preview", "Stopped.") as job,
        open_samples(request, settings, job, keep=False, most_aspect=MOST_ASPECT) as samples,
    ):
        counted = count(samples)
    table = Table("class", "objects", "held out", box=None, pad_edge=False)
    for name in samples.classes:
        table.add_row(escape(name), str(counted.objects[name]), str(counted.held_out[name]))
    console.print(table)
    console.print(
        f"{len(samples.train)} pictures to learn from, {len(samples.held_out)} held out; {counted.empty} of all show "
        "nothing."
    )
    for note in samples.notes:
        console.print(f"note: {escape(note)}", soft_wrap=True)


@dataclass(frozen=True)
class Counted:
    """Objects of each class in a data set, those on held-out pictures among them, and pictures without any."""

    objects: Counter[str]
    held_out: Counter[str]
    empty: int


def count(samples: Samples) -> Counted:
    """Count what is labelled."""
    held_out = Counter(one.label for sample in samples.held_out for one in sample.objects)
    learned = Counter(one.label for sample in samples.train for one in sample.objects)
    empty = sum(not sample.objects for sample in (*samples.train, *samples.held_out))
    return Counted(held_out + learned, held_out, empty)


def _show(result: dict[str, Any], request: QwenTraining, settings: Settings, console: Console) -> None:
    entry = qwen_registry(settings).entry(str(result["id"]))
    console.print(f"[bold]{entry.id}[/] {escape(entry.label)}: {escape(entry.description)}", soft_wrap=True)
    if (table := figures_table(entry)) is not None:
        console.print(table)
    reason = escape(str(result["reason"]))
    if result["activated"]:
        console.print(f"[green]It is active in project {request.project}[/]: {reason}.", soft_wrap=True)
        console.print(f"`tator models qwen rollback --project {request.project}` goes back to the model before.")
        return
    console.print(f"[yellow]It is not active[/]: {reason}.", soft_wrap=True)
    console.print(
        f"`tator models qwen activate {entry.id} --project {request.project or 'N'}` makes it active.", soft_wrap=True
    )
