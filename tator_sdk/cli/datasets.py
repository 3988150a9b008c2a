"""The verbs ``datasets list|show|register|delete``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tator_sdk.cli.bars import progress_bar
from tator_sdk.settings import Settings

if TYPE_CHECKING:
    from tator_sdk.datasets import DatasetRecord, DatasetRegistry

group = typer.Typer(no_args_is_help=True, help="Data sets: what there is, where it lies, whether it changed.")
Name = Annotated[str, typer.Argument(metavar="DATASET", help="Its id in `tator datasets list`, or its path.")]
STATES = {"unchanged": "[green]unchanged[/]", "changed": "[yellow]changed since[/]", "gone": "[red]gone[/]"}


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    if not group.registered_commands:
        group.command("list")(show_all)
        group.command("show")(show)
        group.command("register")(add)
        group.command("delete")(delete)
    app.add_typer(group, name="datasets")


def _registry() -> DatasetRegistry:
    from tator_sdk.datasets import DatasetRegistry  # the readers behind it are no part of the other verbs' start

    return DatasetRegistry(Settings().home)


def show_all() -> None:
    """List the data sets that exports and jobs wrote, and those that you registered.

    Example: tator datasets list
    """
    console = Console(highlight=False)
    records = _registry().list()
    if not records:
        console.print("There is none yet: `tator export` writes one, `tator datasets register PATH` adds yours.")
        return
    table = Table("id", "type", "pictures", "objects", "classes", "made", "path", box=None, pad_edge=False)
    for one in records:
        missing = "" if Path(one.path).exists() else " [red](gone)[/]"
        table.add_row(
            escape(one.id), one.type, str(one.pictures), str(sum(one.classes.values())), str(len(one.classes)),
            one.created_at[:10], escape(one.path) + missing,
        )  # fmt: skip
    console.print(table)


def show(name: Name) -> None:
    """Show a data set: classes with counts, splits, where it came from, and whether it is still the same.

    Example: tator datasets show cars
    """
    console, registry = Console(highlight=False), _registry()
    record = registry.get(name)
    with progress_bar(console, "comparing") as report:
        state = registry.check(record, lambda done, total: report(done, total, "comparing"))
    _print(console, record, STATES[state])


def add(
    path: Annotated[Path, typer.Argument(help="Folder, zip, COCO file or data.yaml.")],
    kind: Annotated[
        str | None, typer.Option("--type", help="Where it cannot be told: yolo-obb, coco, crops, qwen, sam3, …")
    ] = None,
) -> None:
    """Enter a data set in the list; it stays where it is, untouched.

    Example: tator datasets register ~/sets/cars
    """
    console, registry = Console(highlight=False), _registry()
    with progress_bar(console, "reading") as report:
        record = registry.register(path, type=kind, progress=lambda done, total: report(done, total, "reading"))
    _print(console, record, "registered")


def delete(
    name: Name,
    files: Annotated[
        bool, typer.Option("--files", help="Remove its files too: only if Tator wrote them, and nobody since.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Take a data set off the list; its files stay, unless you say --files.

    Example: tator datasets delete cars
    """
    console, registry = Console(highlight=False), _registry()
    record = registry.get(name)
    what = f"the files in {record.path} ({record.pictures} pictures)" if files else f"'{record.id}' from the list"
    if not yes and not typer.confirm(f"Remove {what}?"):
        console.print("Nothing was removed.")
        raise typer.Exit(1)
    if files:
        registry.remove_files(record)
        console.print(f"Removed: {escape(record.path)}", soft_wrap=True)
    else:
        registry.forget(record)
        console.print(
            f"'{escape(record.id)}' is off the list; its files stay at {escape(record.path)}.", soft_wrap=True
        )


def _print(console: Console, record: DatasetRecord, state: str) -> None:
    console.print(f"[bold]{escape(record.id)}[/]: {record.type}, {record.pictures} pictures, {state}")
    console.print(f"{escape(record.path)}, made {record.created_at}", soft_wrap=True)
    splits = ", ".join(f"{count} {split or 'unsplit'}" for split, count in record.splits.items())
    if splits:
        console.print(f"splits: {splits}")
    if record.source:
        said = ", ".join(f"{key} {value}" for key, value in record.source.items() if value)
        console.print(f"source: {escape(said)}")
    console.print(f"signature: {record.signature[:16]}")
    table = Table("class", "objects", box=None, pad_edge=False)
    for label, count in record.classes.items():
        table.add_row(escape(label), str(count))
    console.print(table)
