"""``tweak --undo``: what a job did, taken back after a look at what that would be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from tator_ml.cli.jobs import progress_columns, refuse_while_open
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings
from training.cli.tweak import JOB, project_of
from training.pushed import Watch, delete_predictions, predictions_of
from training.tweak.apply import CHANGES_FILE, record_of
from training.tweak.undo import restore

SHOWN = 20


def take_back(settings: Settings, console: Console, job_id: str, project: int | None, yes: bool) -> None:
    """Restore the annotations that a job changed, and delete the predictions that it pushed.

    Raises:
        TatorError: it is no such job, or it has not ended.
        typer.Exit: the person says no.
    """
    if not JOB.fullmatch(job_id):
        raise TatorError(f"'{job_id}' is not the whole id of a tweak job, such as tweak-3-7f2a; see `tator jobs list`.")
    refuse_while_open(settings, job_id)
    folder = settings.home / "jobs" / job_id
    changed, _ = record_of(folder / CHANGES_FILE)
    if changed:
        _restore(settings, console, job_id, len(changed), yes)
        return
    project = project or project_of(settings, job_id)
    numbers = predictions_of(settings, project, job_id)
    if not numbers:
        console.print(
            f"Nothing of {job_id} is to be taken back: project {project} has no prediction of it, and there is no "
            f"record of changed annotations in {escape(str(folder))}.",
            soft_wrap=True,
        )
        return
    if not yes and not typer.confirm(f"Delete all predictions of {job_id} in project {project} ({len(numbers)})?"):
        console.print("Nothing was deleted.")
        raise typer.Exit(1)
    with _bar(console, "deleting") as watch:
        delete_predictions(settings, numbers, watch)
    console.print(f"Predictions deleted from project {project}: {len(numbers)} of {job_id}; annotations stay.")


def _restore(settings: Settings, console: Console, job_id: str, count: int, yes: bool) -> None:
    if not yes and not typer.confirm(f"Put the boxes of {count} annotations back to where {job_id} found them?"):
        console.print("Nothing was changed.")
        raise typer.Exit(1)
    with _bar(console, "restoring") as watch:
        undone = restore(settings, settings.home / "jobs" / job_id, watch)
    there = f"; stood so already: {undone.there}" if undone.there else ""
    console.print(f"Annotations restored: {undone.restored}{there}.")
    if undone.skipped:
        console.print(f"Left as they are: {len(undone.skipped)}.")
        for one in undone.skipped[:SHOWN]:
            console.print(f"  [yellow]![/] annotation {one['annotation']} of task {one['task']}: {one['why']}")
        if len(undone.skipped) > SHOWN:
            console.print(f"  and {len(undone.skipped) - SHOWN} more")
        raise typer.Exit(1)


@contextmanager
def _bar(console: Console, what: str) -> Iterator[Watch]:
    """A progress bar, handed out as what it is told by."""
    with Progress(*progress_columns(), console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)
