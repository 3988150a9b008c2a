"""The verb ``export``: a project as a data set on disk."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tator_sdk.cli.bars import progress_bar
from tator_sdk.cli.options import EITHER_SPELLING, with_request
from tator_sdk.errors import TatorError
from tator_sdk.requests import Export
from tator_sdk.settings import Settings

FORMS = ("yolo", "yolo-seg", "yolo-obb", "coco", "crops")
SHOWN_PROBLEMS = 20

Form = Annotated[str, typer.Argument(metavar="FORM", help=f"One of: {', '.join(FORMS)}.")]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    decorate = with_request(Export, also={"project": ["-p"], "output": ["-o"]})
    app.command("export", context_settings=EITHER_SPELLING)(decorate(export))


def export(request: Export, form: Form) -> None:
    """Export a project's annotations as a data set: yolo (boxes), yolo-seg (polygons), yolo-obb, coco, or crops.

    Pictures are split into train and val by their content, so the same picture is always on the same side. What cannot
    be written is counted and listed; nothing that is there already is written over. The data set is entered in
    `tator datasets`.

    Example: tator export yolo-seg --project 3 --output cars
    """
    from tator_sdk.export import Form as KnownForm  # the SDK behind it is no part of the other verbs' start
    from tator_sdk.export import export as run

    if form not in FORMS:
        raise TatorError(f"There is no form '{form}'; there are {', '.join(FORMS)}.")
    known: KnownForm = form  # type: ignore[assignment]
    console = Console(highlight=False)
    with progress_bar(console, "exporting") as report:
        done = run(known, request, Settings(), report)
    table = Table("class", "objects", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for name, count in done.classes.items():
        table.add_row(escape(name), str(count))
    console.print(table)
    total = sum(done.pictures.values())
    splits = ", ".join(f"{count} {split}" for split, count in done.pictures.items() if split)
    console.print(f"{total} pictures" + (f" ({splits})" if splits else "") + f", {sum(done.classes.values())} objects.")
    for note in done.written.notes if done.written else ():
        console.print(f"  [yellow]![/] {escape(note)}")
    if done.problems:
        console.print(f"[yellow]Left out: {len(done.problems)}[/]")
        for problem in done.problems[:SHOWN_PROBLEMS]:
            console.print(f"  [yellow]![/] {escape(problem)}")
        if len(done.problems) > SHOWN_PROBLEMS:
            console.print(f"  … and {len(done.problems) - SHOWN_PROBLEMS} more")
    if done.written is None:
        console.print("Nothing was written: this was a dry run.")
        return
    if done.written.moved is not None:
        console.print(f"What was there lies at {done.written.moved} now.", soft_wrap=True)
    console.print(f"Written: {done.written.path}", soft_wrap=True)
    if done.record is not None:
        console.print(f"Registered as '{done.record.id}': tator datasets show {done.record.id}", soft_wrap=True)
