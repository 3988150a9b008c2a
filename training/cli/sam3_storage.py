"""``models sam3 promote`` and ``storage``: what trainings of SAM 3 leave on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tator_ml.cli.options import SomeProject
from tator_ml.cli.runs import Yes
from tator_ml.cli.serving import Home, read_settings

if TYPE_CHECKING:
    from training.sam3.storage import Stored

Deletable = Literal["checkpoints", "optimizer", "best", "models", "runs", "all"]


def register(sam3: typer.Typer) -> None:
    """Add the verbs to those about models."""
    sam3.command()(promote)
    sam3.command()(storage)


def promote(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The training's id (`tator jobs list`), or its beginning.")],
    step: Annotated[
        int | None, typer.Option(min=0, help="Of the checkpoint. Default: the best weights, else the newest.")
    ] = None,
    home: Home = None,
) -> None:
    """Keep one checkpoint of a training as a run, without the optimizer's state.

    The training may run on, or have been cancelled or killed. The run is active nowhere until you activate it.

    Example: tator models sam3 promote sam3-3-7f2a

    Example: tator models sam3 promote sam3-3-7f2a --step 400
    """
    from training.sam3.promote import promote as keep

    entry = keep(read_settings(home=home), job, step)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{entry.id}[/] {escape(entry.label)}: {escape(entry.description)}")
    console.print(f"`tator models sam3 activate {entry.id} --project {entry.project or 'N'}` makes it active.")


def storage(
    project: SomeProject = None,
    delete: Annotated[
        Deletable | None,
        typer.Option(help="Delete this scope for good; checkpoints go with their optimizer's state."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
    yes: Yes = False,
    home: Home = None,
) -> None:
    """Show what trainings of SAM 3 keep on disk, and delete it by scope.

    What is active, being trained or waiting is never deleted.

    Example: tator models sam3 storage

    Example: tator models sam3 storage --delete optimizer --dry-run

    Example: tator models sam3 storage --delete all --project 3
    """
    from training.sam3 import storage as kept

    settings, console = read_settings(home=home), Console(highlight=False)
    found = kept.stored(settings, project)
    if not found:
        console.print("Trainings of SAM 3 keep nothing here.")
        return
    if delete is None:
        _show(found, console)
        return
    chosen = kept.deletable(found, delete)
    if not chosen:
        console.print("There is nothing to delete: it is active, being trained or waiting, or not there.")
        return
    _show(chosen, console)
    if dry_run:
        console.print("Nothing was deleted.")
        return
    question = f"Delete {_size(sum(one.bytes for one in chosen))} for good?"
    if not yes and not typer.confirm(question):
        console.print("Nothing was deleted.")
        raise typer.Exit(1)
    console.print(f"{_size(kept.delete(settings, chosen))} were given back.")


def _show(found: Sequence[Stored], console: Console) -> None:
    table = Table("scope", "of", "project", "bytes", "kept because it", box=None, pad_edge=False)
    table.columns[1].no_wrap = True  # ids are there to be copied
    for one in found:
        project = str(one.project) if one.project else ""
        table.add_row(one.scope, one.owner, project, _size(one.bytes), escape(one.held or ""))
    console.print(table)
    sums = {scope: sum(one.bytes for one in found if one.scope == scope) for scope in dict.fromkeys(_scopes(found))}
    said = ", ".join(f"{scope} {_size(count)}" for scope, count in sums.items())
    console.print(f"{said}; {_size(sum(sums.values()))} in all.", soft_wrap=True)


def _scopes(found: Sequence[Stored]) -> list[str]:
    return [one.scope for one in found]


def _size(count: int) -> str:
    for unit, size in (("GB", 2**30), ("MB", 2**20), ("kB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
