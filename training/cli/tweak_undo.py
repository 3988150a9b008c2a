"""``tweak --undo``: what a job did, taken back after a look at what that would be."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.markup import escape

from tator_sdk.cli.bars import progress_bar
from tator_sdk.settings import Settings
from training.cli.project_job import checked_id, delete_pushed, project_of
from training.tweak.apply import CHANGES_FILE, record_of
from training.tweak.undo import restore

SHOWN = 20


def take_back(settings: Settings, console: Console, job_id: str, project: int | None, yes: bool) -> None:
    """Restore the annotations that a job changed, and delete the predictions that it pushed.

    Raises:
        TatorError: it is no such job, or it has not ended.
        typer.Exit: the person says no.
    """
    checked_id(settings, "tweak", job_id)
    folder = settings.home / "jobs" / job_id
    changed, _ = record_of(folder / CHANGES_FILE)
    if changed:
        _restore(settings, console, job_id, len(changed), yes)
        return
    project = project or project_of(settings, "tweak", job_id)
    if not delete_pushed(settings, console, job_id, project, yes):
        console.print(
            f"Nothing of {job_id} is to be taken back: project {project} has no prediction of it, and there is no "
            f"record of changed annotations in {escape(str(folder))}.",
            soft_wrap=True,
        )


def _restore(settings: Settings, console: Console, job_id: str, count: int, yes: bool) -> None:
    if not yes and not typer.confirm(f"Put the boxes of {count} annotations back to where {job_id} found them?"):
        console.print("Nothing was changed.")
        raise typer.Exit(1)
    with progress_bar(console, "restoring") as watch:
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
