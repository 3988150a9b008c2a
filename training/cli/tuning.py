"""What verbs share that tune a model: by a worker or here, what there is to learn, and how it went."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tator_ml.cli.jobs import follow
from tator_ml.cli.runs import Kind, figures_table
from tator_sdk.qwen_request import QwenTraining
from tator_sdk.sam3_request import Sam3Training
from tator_sdk.settings import Settings
from training.cli.train import TrainError
from training.cli.working import INTERRUPTED, worker_answers

if TYPE_CHECKING:
    from training.job import Job
    from training.samples import Samples

Request = QwenTraining | Sam3Training


@dataclass(frozen=True)
class Where:
    """Where a tuning runs, and what is shown of it; see the options of the same names."""

    here: bool
    detach: bool
    dry_run: bool
    verbose: bool


@dataclass(frozen=True)
class Tuning:
    """One kind of tuning as its verb knows it.

    Attributes:
        kind: of the job, and of its models in ``tator models``.
        verbs: those about its models.
        tune: does it, in this process.
        preview: shows what there is to learn.
    """

    kind: str
    verbs: Kind
    tune: Callable[[Any, Settings, Job], dict[str, Any]]
    preview: Callable[[Any, Settings, Console], None]

    def run(self, request: Request, where: Where, settings: Settings, console: Console) -> None:
        """Do what a verb was asked for.

        Raises:
            TrainError: that does not go together, or another training is not over.
            typer.Exit: it failed, was cancelled, or Ctrl-C ended it.
        """
        from tator_ml.launch import at_its_place, launch

        if where.detach and (where.here or where.dry_run):
            raise TrainError("--detach hands the training to a worker: leave --here and --dry-run out.")
        request = cast(Request, at_its_place(request))
        if where.dry_run:
            self.preview(request, settings, console)
            return
        if where.detach:
            record = launch(settings, request)[0]
            typer.echo(record.id)
            typer.echo(f"`tator jobs log --follow {record.id}` shows how it goes.", err=True)
            return
        if not where.here and worker_answers(settings, console):
            record = follow(settings, launch(settings, request)[0].id, console)
            if record.status != "done" or record.result is None:
                raise typer.Exit(1 if record.over else INTERRUPTED)
            result = record.result
        else:
            result = self._in_this_process(request, settings, console, where.verbose)
        if result:  # else this process has only helped another one
            self._show(result, request, settings, console)

    def _in_this_process(self, request: Request, settings: Settings, console: Console, verbose: bool) -> dict[str, Any]:
        from training.cli.foreground import foreground

        stopped = "Stopped; the same command goes on from its last checkpoint."
        with foreground(settings, console, verbose, self._job_of(request, settings), stopped) as job:
            return self.tune(request, settings, job)

    def _job_of(self, request: Request, settings: Settings) -> str:
        """The id of a job in this process: the same for the same command, until that has come to its run."""
        digest = hashlib.sha256(request.model_dump_json().encode()).hexdigest()[:8]
        stem = f"{self.kind}-here-{digest}"
        done = {(entry.metrics or {}).get("job") for entry in self.verbs.open(settings).entries()}
        number = 1
        while (job := stem if number == 1 else f"{stem}-{number}") in done:
            number += 1
        return job

    def _show(self, result: dict[str, Any], request: Request, settings: Settings, console: Console) -> None:
        registry = self.verbs.open(settings)
        entry = registry.entry(str(result["id"]))
        console.print(f"[bold]{entry.id}[/] {escape(entry.label)}: {escape(entry.description)}", soft_wrap=True)
        if (table := figures_table(entry, registry)) is not None:
            console.print(table)
        reason, verb = escape(str(result["reason"])), f"tator models {self.kind}"
        if result["activated"]:
            console.print(f"[green]It is active in project {request.project}[/]: {reason}.", soft_wrap=True)
            console.print(f"`{verb} rollback --project {request.project}` goes back to the model before.")
            return
        console.print(f"[yellow]It is not active[/]: {reason}.", soft_wrap=True)
        console.print(
            f"`{verb} activate {entry.id} --project {request.project or 'N'}` makes it active.", soft_wrap=True
        )


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


def print_counts(samples: Samples, console: Console, more: dict[str, dict[str, str]] | None = None) -> None:
    """Show what there is to learn: objects by class, pictures, and what was left out.

    Args:
        samples: the data set.
        console: to print on.
        more: further columns by title: a cell for each class.
    """
    counted, more = count(samples), more or {}
    table = Table("class", "objects", "held out", *more, box=None, pad_edge=False)
    for name in samples.classes:
        cells = [escape(column.get(name, "")) for column in more.values()]
        table.add_row(escape(name), str(counted.objects[name]), str(counted.held_out[name]), *cells)
    console.print(table)
    console.print(
        f"{len(samples.train)} pictures to learn from, {len(samples.held_out)} held out; {counted.empty} of all show "
        "nothing."
    )
    for note in samples.notes:
        console.print(f"note: {escape(note)}", soft_wrap=True)
