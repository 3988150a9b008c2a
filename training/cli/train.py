"""Verbs that train: ``train clip``."""

from __future__ import annotations

import secrets
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from tator_ml.cli.heads import per_class_table, quality, silence
from tator_ml.cli.jobs import follow
from tator_ml.cli.serving import Home, read_settings
from tator_ml.reports import part, rows
from tator_sdk.cli.options import EITHER_SPELLING, with_request
from tator_sdk.errors import TatorError
from tator_sdk.requests import HeadTraining
from tator_sdk.settings import Settings
from training.cli.working import INTERRUPTED, WHERE, Detach, DryRun, Here, Verbose, worker_answers

if TYPE_CHECKING:
    from tator_ml.learning.registry import HeadEntry
    from training.job import LocalJob

PICKLES = {".pkl", ".pickle", ".joblib"}
MOST_CLASSES = 12

ALSO = {
    "project": ["-p"],
    "device": ["device-override"],
    "cache": ["resume-cache"],
    "inverse_regularization": ["C"],
    "tolerance": ["tol"],
}
"""Names that the original's command line has for an option, or that people know from scikit-learn."""

train = typer.Typer(name="train", no_args_is_help=True)


class TrainError(TatorError):
    """A training cannot begin as it was asked for; the message says what to do."""


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(train)


@train.callback()
def _about() -> None:
    """Train what Tator answers with, from annotations in Label Studio or from folders.

    Example: tator train clip --project 3

    Example: tator train clip --images-path data/images --dry-run

    `tator models list` shows what was trained, `tator jobs list` what is being trained.
    """


@train.command("clip", context_settings=EITHER_SPELLING)
@with_request(HeadTraining, also=ALSO)
def clip(
    request: HeadTraining,
    model_output: Annotated[
        Path | None, typer.Option(help="Also write the head to this folder.", rich_help_panel=WHERE)
    ] = None,
    labelmap_output: Annotated[
        Path | None,
        typer.Option(help="Also write the names of its classes to this file, one a line.", rich_help_panel=WHERE),
    ] = None,
    here: Here = False,
    detach: Detach = False,
    dry_run: DryRun = False,
    verbose: Verbose = False,
    home: Home = None,
) -> None:
    """Train a class head: a calibrated logistic regression on embeddings of labelled boxes.

    From a project it takes every submitted box and becomes the project's head if it is not worse than the active
    one on held-out pictures. A worker does it where one runs (`tator up`), else this process.

    Example: tator train clip --project 3

    Example: tator train clip --images-path data/images --labelmap-path data/labelmap.txt --dry-run

    Example: tator train clip --images-path data/images --encoder open_clip:ViT-B-32 --class-weight balanced
    --model-output cars

    Example: tator train clip --project 3 --solver saga --C 0.5 --hard-example-mining --activation never

    A folder is one of YOLO: pictures, beside each (or under labels/ instead of images/) a text file with a line
    `class cx cy w h` for each box, and labelmap.txt, classes.txt or data.yaml with the names. Each option may be
    written with - or _.
    """
    settings, console = read_settings(home=home), Console(highlight=False)
    if detach and (here or dry_run or request.project is None):
        raise TrainError("--detach hands the training of a project to a worker: give --project N, and not --here.")
    if detach and (model_output or labelmap_output):
        raise TrainError("--detach does not wait for the head; `tator models export` writes it out once it is there.")
    if dry_run:
        _preview(request, settings, console)
        return
    if detach:
        from tator_ml.launch import launch

        record = launch(settings, request)[0]
        typer.echo(record.id)
        typer.echo(f"`tator jobs log --follow {record.id}` shows how it goes.", err=True)
        return
    outputs = _outputs(model_output, labelmap_output, console)
    if not here and request.project is not None and worker_answers(settings, console):
        result = _by_worker(request, settings, console)
    else:
        result = _in_this_process(request, settings, console, verbose)
    _finish(result, request, settings, outputs, console, verbose)


def _preview(request: HeadTraining, settings: Settings, console: Console) -> None:
    from tator_ml.learning.stores import image_store
    from training.clip.dataset import read_dataset
    from training.clip.preview import preview, show_preview

    with _foreground(settings, console, verbose=False) as job:
        dataset = read_dataset(request, settings, image_store(settings), job, trains=False)
    show_preview(preview(dataset, request), request, console)


def _outputs(model: Path | None, labelmap: Path | None, console: Console) -> tuple[Path | None, Path | None]:
    """Where the head and its names go; told before the training, so that none is in vain.

    Raises:
        TrainError: something else is there.
    """
    if model is not None and model.suffix.lower() in PICKLES:
        named, model = model, model.with_suffix("")
        console.print(
            f"Heads are never pickles, which could run anything when read: instead of {escape(named.name)} the folder "
            f"{escape(str(model))} is written.", soft_wrap=True,
        )  # fmt: skip
    if labelmap is not None and labelmap.suffix.lower() in PICKLES:
        named, labelmap = labelmap, labelmap.with_suffix(".txt")
        console.print(
            f"Instead of {escape(named.name)} the text file {escape(str(labelmap))} is written.", soft_wrap=True
        )
    if model is not None and model.exists() and not model.is_dir():
        raise TrainError(f"{model} is a file; name a folder for the head.")
    if model is not None and model.is_dir() and any(model.iterdir()) and not (model / "head.json").exists():
        raise TrainError(f"The folder {model} holds other things than a head; name an empty or a new one.")
    if labelmap is not None and labelmap.is_dir():
        raise TrainError(f"{labelmap} is a folder; name a file for the classes.")
    return model, labelmap


def _foreground(settings: Settings, console: Console, verbose: bool) -> AbstractContextManager[LocalJob]:
    from training.cli.foreground import foreground

    stopped = "Stopped: no head was made. Embeddings in the cache stay, so that starting again is quicker."
    return foreground(settings, console, verbose, f"clip-here-{secrets.token_hex(2)}", stopped)


def _by_worker(request: HeadTraining, settings: Settings, console: Console) -> dict[str, Any]:
    """Follow the job; where another one of the project runs, that one first, then ours.

    Raises:
        typer.Exit: it failed, was cancelled, or Ctrl-C ended the watching.
    """
    from tator_ml.jobs.connection import reached
    from tator_ml.jobs.records import JobRecords
    from tator_ml.launch import launch

    asked = time.time()
    record = follow(settings, launch(settings, request)[0].id, console)
    if record.created < asked and record.over:
        with reached(settings) as connection:
            later = [
                one for one in JobRecords(connection).list(request.project)
                if one.kind == "clip" and one.created > record.created
            ]  # fmt: skip
        if later:
            console.print("That training had begun before; yours comes now.")
            record = follow(settings, later[0].id, console)
    if record.status != "done" or record.result is None:
        raise typer.Exit(1 if record.over else INTERRUPTED)
    return record.result


def _in_this_process(request: HeadTraining, settings: Settings, console: Console, verbose: bool) -> dict[str, Any]:
    from training.clip.train import train as train_head

    with _foreground(settings, console, verbose) as job:
        return train_head(request, settings, job)


def _finish(
    result: dict[str, Any], request: HeadTraining, settings: Settings, outputs: tuple[Path | None, Path | None],
    console: Console, verbose: bool,
) -> None:  # fmt: skip
    """Write what was asked for, and say how it went."""
    from tator_ml.learning.stores import head_registry

    entry = head_registry(settings).get(str(result["version"]))
    _show(entry, bool(result["activated"]), request.project, console, verbose)
    folder, labelmap = outputs
    if folder is not None:
        _write(entry, folder)
        console.print(f"The head is in {escape(str(folder))}.", soft_wrap=True)
    if labelmap is not None:
        labelmap.parent.mkdir(parents=True, exist_ok=True)
        names = rows(entry.about(), "label_map")
        labelmap.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        console.print(f"The names of its {len(names)} classes are in {escape(str(labelmap))}.", soft_wrap=True)


def _write(entry: HeadEntry, folder: Path) -> None:
    """Copy a head out of the registry, in an order in which a crash leaves none that loads and is wrong."""
    from tator_ml.engine.head import METADATA_FILE, WEIGHTS_FILE
    from tator_ml.learning.registry import REPORT_FILE
    from tator_sdk.files import write_durably

    folder.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS_FILE, METADATA_FILE, REPORT_FILE):
        write_durably(folder / name, (entry.folder / name).read_bytes())


def _show(entry: HeadEntry, active: bool, project: int | None, console: Console, verbose: bool) -> None:
    report = entry.report
    training = part(report, "metrics", "training")
    learned = f"learned from {training.get('boxes')} boxes in {training.get('images')} pictures"
    console.print(f"[bold]{entry.version}[/] {learned}: {quality(entry)}.")
    if (table := per_class_table(report, MOST_CLASSES)) is not None:
        console.print(table)
    console.print(f"{silence(entry)}.")
    reason = escape(str(part(report, "gate").get("reason")))
    notes = [str(note) for note in rows(dict(report), "notes")]
    if verbose:
        for note in notes:
            console.print(f"note: {escape(note)}", soft_wrap=True)
    elif notes:
        console.print(f"{_count(len(notes), 'note')}; `tator models show {entry.version}` has them.")
    if active:
        console.print(f"[green]It is active in project {project}[/]: {reason}.")
        console.print(f"`tator models rollback --project {project}` goes back to the head before.")
        return
    held_back = project is not None and part(report, "request").get("activation") != "never"
    why = reason if held_back else f"that is left to you; {reason}"
    console.print(f"[yellow]It is not active[/]: {why}.")
    console.print(
        f"`tator models activate {entry.version} --project {project or 'N'}` makes it active.", soft_wrap=True
    )


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
