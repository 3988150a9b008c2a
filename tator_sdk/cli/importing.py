"""The verb ``import``: a data set in files into a project, what would happen, and its undo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from tator_sdk.cli.bars import progress_bar
from tator_sdk.errors import TatorError
from tator_sdk.requests import DataImport
from tator_sdk.settings import Settings

if TYPE_CHECKING:
    from tator_sdk.formats.dataset import BadLine
    from tator_sdk.importing import ImportReport

SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("import")(import_)


def _help(field: str) -> str:
    return DataImport.model_fields[field].description or ""


def import_(
    kind: Annotated[
        str | None, typer.Argument(metavar="yolo|coco", help="What it is; of YOLO also: detect, segment, obb.")
    ] = None,
    path: Annotated[Path | None, typer.Argument(help=_help("path"))] = None,
    project: Annotated[int | None, typer.Option("--project", "-p", help=_help("project"))] = None,
    target: Annotated[str, typer.Option("--as", help=_help("target"))] = "annotations",
    model_version: Annotated[str, typer.Option(help=_help("model_version"))] = "import",
    local_files: Annotated[Path | None, typer.Option(metavar="DOCUMENT_ROOT", help=_help("local_files"))] = None,
    url_prefix: Annotated[str | None, typer.Option(help=_help("url_prefix"))] = None,
    match: Annotated[bool, typer.Option("--match", help=_help("match"))] = False,
    empty_as_annotation: Annotated[
        bool, typer.Option("--empty-as-annotation", help=_help("empty_as_annotation"))
    ] = False,
    names: Annotated[Path | None, typer.Option(help=_help("names"))] = None,
    images: Annotated[Path | None, typer.Option(help=_help("images"))] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would happen, with every bad line.")
    ] = False,
    undo: Annotated[str | None, typer.Option(metavar="ID", help="Take an import back.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --undo: do not ask.")] = False,
) -> None:
    """Import a YOLO or COCO data set into a project: pictures become tasks, shapes become annotations.

    Running it again adds nothing, and completes what was interrupted. Shapes go to the tags that the labelling
    configuration has for them; what cannot be used is listed with file and line, and never stops the rest.
    `--undo ID` takes an import back, but for the tasks that people have worked on since.

    Example: tator import yolo street.zip --project 3 --dry-run
    """
    settings, console = Settings(), Console(highlight=False)
    if undo is not None:
        _undo(settings, console, undo, yes)
        return
    if kind is None or path is None or project is None:
        raise TatorError("Say what goes where: tator import yolo PATH --project N (or coco).")
    given: dict[str, Any] = {
        "kind": kind, "project": project, "target": target, "model_version": model_version, "match": match,
        "empty_as_annotation": empty_as_annotation, "url_prefix": url_prefix, "path": _whole(path),
        "local_files": _whole(local_files), "names": _whole(names), "images": _whole(images),
    }  # fmt: skip
    request = DataImport.model_validate(given)
    report = _run(settings, console, request, dry_run)
    show(console, request, report, dry_run)


def _whole(path: Path | None) -> Path | None:
    return None if path is None else path.expanduser().absolute()


def _run(settings: Settings, console: Console, request: DataImport, dry_run: bool) -> ImportReport:
    from tator_sdk.importing import Importer  # the readers behind it are no part of the other verbs' start

    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    with progress_bar(errors, "starting") as progress:

        def bad(line: BadLine) -> None:
            errors.print(f"[yellow]![/] {escape(str(line))}")

        importer = Importer(request, settings, progress, bad)
        try:
            return importer.run(dry_run)
        except KeyboardInterrupt:
            if importer.report.id:
                errors.print(_how_to_go_on(importer.report.id))
            raise


def show(console: Console, request: DataImport, report: ImportReport, dry_run: bool) -> None:
    """Print what an import did, or would do."""
    console.print(f"[bold]{_count(report.pictures, 'picture')}[/] read.")
    verb = "would become" if dry_run else "became"
    said = (
        f"shapes {'would go' if dry_run else 'went'} to tasks that are there" if request.match else f"{verb} a new task"
    )
    console.print(f"  {_count(report.created, 'picture')}: {said}")
    for label, count in sorted(report.shapes.regions.items(), key=lambda row: -row[1]):
        console.print(f"  {count:>8}  {escape(label)}")
    lines = [
        (report.there, "imported before, left as it is", "imported before, left as they are"),
        (report.foreign, "is in the project already, from elsewhere; --match adds shapes to such tasks",
         "are in the project already, from elsewhere; --match adds shapes to such tasks"),
        (report.unmatched, "has no task of its own", "have no task of their own"),
        (report.refused, "was refused by Label Studio", "were refused by Label Studio"),
        (report.empty, *(2 * (_about_empty(request),))),
    ]  # fmt: skip
    for count, one, several in lines:
        if count:
            console.print(f"  {_count(count, 'picture')} {one if count == 1 else several}")
    for label, count in report.shapes.missing.items():
        console.print(f"  [yellow]![/] {_count(count, 'shape')} of {escape(label)} left out: no tag has that label")
    for what, count in report.shapes.changed.items():
        console.print(f"  [yellow]![/] {escape(what)}: {count}")
    if report.bad:
        console.print(f"  [yellow]![/] {_count(report.bad, 'line')} left out, listed above with file and number")
    for note in report.notes:
        console.print(f"  [yellow]![/] {escape(note)}", soft_wrap=True)
    if report.nbytes:
        console.print(f"  {report.nbytes / 2**20:.1f} MiB of pictures {'to upload' if dry_run else 'uploaded'}")
    if dry_run:
        console.print("Nothing was changed; the same without --dry-run imports it.")
    else:
        rate = report.created / report.seconds if report.seconds else 0
        console.print(f"{report.seconds:.1f} s, {rate:.0f} pictures a second.")
        console.print(f"To take it back: tator import --undo {report.id}", soft_wrap=True)


def _about_empty(request: DataImport) -> str:
    if request.empty_as_annotation:
        return "without shapes: labelled as showing nothing"
    return "without shapes: not labelled (--empty-as-annotation labels them as showing nothing)"


def _undo(settings: Settings, console: Console, import_id: str, yes: bool) -> None:
    from tator_sdk.import_undo import ImportUndo

    undo = ImportUndo(settings, import_id)
    found = undo.find()
    kept = sorted(set(found.kept))
    if kept:
        shown = ", ".join(map(str, kept[:SHOWN])) + (" …" if len(kept) > SHOWN else "")
        console.print(f"People have worked on {_count(len(kept), 'task')} since, which stay: {shown}")
    if found.nothing:
        console.print(f"There is nothing of {import_id} to delete in project {undo.record.project}.")
        return
    parts = [
        (len(found.tasks), "task"), (len(found.annotations), "annotation"), (found.predictions, "prediction"),
    ]  # fmt: skip
    what = ", ".join(_count(count, noun) for count, noun in parts if count)
    if not yes and not typer.confirm(f"Delete {what} of {import_id} from project {undo.record.project}?"):
        console.print("Nothing was deleted.")
        raise typer.Exit(1)
    with progress_bar(console, "deleting") as progress:
        done = undo.delete(found, progress)
    count = len(done.tasks) + len(done.annotations) + done.predictions
    console.print(f"Deleted from project {undo.record.project}: {count} of {count + len(set(done.kept))}.")


def _how_to_go_on(import_id: str) -> str:
    return f"The same again completes it; tator import --undo {import_id} takes back what is there."


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
