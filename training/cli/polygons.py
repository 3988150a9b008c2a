"""The verbs ``polygons build`` and ``polygons undo``: boxes of a project or a data set → polygons."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from tator_ml.cli.jobs import follow, worker_lives
from tator_ml.cli.serving import Home, read_settings
from tator_sdk.cli.bars import progress_bar
from tator_sdk.cli.options import EITHER_SPELLING, with_request
from tator_sdk.errors import TatorError
from tator_sdk.requests import SegmentationBuild
from tator_sdk.settings import Settings
from training.cli.project_job import delete_pushed

BUILD = re.compile(r"polygons-[0-9a-f]{10}")

polygons = typer.Typer(name="polygons", help="Boxes to polygons or oriented boxes, in bulk.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(polygons)


@polygons.command("build", context_settings=EITHER_SPELLING)
@with_request(SegmentationBuild, also={"project": ["-p"]})
def build(
    request: SegmentationBuild,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    here: Annotated[bool, typer.Option("--here", help="In this process, not as jobs of workers.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start the jobs and do not wait for them.")] = False,
    home: Home = None,
) -> None:
    """Turn the boxes of a whole project or YOLO data set into polygons, or oriented boxes.

    Makes a new data set (YOLO-seg, COCO with segmentations, sam3_dataset.json) and changes nothing of the source. The
    work is shared by all workers, on any number of hosts; stopped or killed, the same command goes on where it was.

    Example: tator polygons build --path cars --segmenter sam2-tiny

    Example: tator polygons build --project 3 --oriented --push
    """
    settings, console = read_settings(home=home), Console(highlight=False, soft_wrap=True)
    if here and (detach or request.shards > 1):
        raise TatorError("--here works in this process alone; leave --detach and --shards out.")
    if dry_run:
        _tell(settings, console, request)
        return
    if here or not (detach or worker_lives(settings)):
        _show(console, _run_here(settings, console, request), request.project)
        return
    report = _run_queued(settings, console, request, detach)
    if report is not None:
        _show(console, report, request.project)


@polygons.command("undo")
def undo(
    name: Annotated[str, typer.Argument(metavar="BUILD", help="As `polygons build` names it: polygons-…")],
    project: Annotated[int, typer.Option("--project", "-p", min=1, help="The project that it was pushed to.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    home: Home = None,
) -> None:
    """Take back the predictions that a build has pushed; annotations and the data set stay.

    Example: tator polygons undo polygons-0c1d2e3f4a --project 3
    """
    if not BUILD.fullmatch(name):
        raise TatorError(f"'{name}' is not the whole name of a build, such as polygons-0c1d2e3f4a.")
    settings, console = read_settings(home=home), Console(highlight=False)
    if not delete_pushed(settings, console, name, project, yes):
        console.print(f"Project {project} has no prediction of {name}: nothing was deleted.")


def _tell(settings: Settings, console: Console, request: SegmentationBuild) -> None:
    from tator_ml.learning.stores import image_store
    from training.segmentation.build import output_folder
    from training.segmentation.source import counted

    source, pictures, boxes = counted(request, settings, image_store(settings))
    what = "oriented boxes" if request.oriented else "polygons"
    console.print(f"{boxes} boxes in {pictures} pictures would become {what} in {output_folder(request, settings)}.")
    console.print(f"Classes: {escape(', '.join(source.classes))}.")
    for note in source.notes[:20]:
        console.print(f"  [yellow]![/] {escape(note)}")


def _run_here(settings: Settings, console: Console, request: SegmentationBuild) -> dict[str, Any]:
    from training.job import LocalJob
    from training.segmentation.build import build as run

    with progress_bar(console, "starting") as progress:
        # named after the request, so that the same command finds what it had done
        return run(request, settings, LocalJob(settings, f"{request.build}-here", progress))


def _run_queued(
    settings: Settings, console: Console, request: SegmentationBuild, detach: bool
) -> dict[str, Any] | None:
    from tator_ml.launch import launch

    records = launch(settings, request)
    if detach:
        for one in records:
            console.print(f"{one.id} is {one.status}; `tator jobs show {one.id}` shows how it stands.")
        return None
    ended = [follow(settings, one.id, console) for one in records]
    if any(one.over and one.status != "done" for one in ended):
        console.print("The same command goes on where this stopped.")
        raise typer.Exit(1)
    return next((one.result for one in ended if one.result and one.result.get("finished")), None)


def _show(console: Console, report: dict[str, Any], project: int | None) -> None:
    """Print what was made."""
    splits = ", ".join(f"{count} {split}" for split, count in (report.get("splits") or {}).items())
    console.print(f"[bold]{escape(report['output'])}[/] is there: {report['pictures']} pictures ({splits}).")
    vertices = f", {report['median_vertices']:g} vertices in the middle" if report["masks"] else ""
    console.print(f"From masks: {report['masks']}{vertices} (with {escape(str(report['segmenter']))}).")
    if report["drawn"]:
        console.print(f"Outlines that were drawn, as they were: {report['drawn']}.")
    if report["kept"]:
        console.print(f"Boxes kept for want of a usable mask: {report['kept']}; kept_boxes.json lists them.")
        for reason, count in sorted(report["reasons"].items(), key=lambda row: -row[1])[:5]:
            console.print(f"  {count}: {escape(reason)}")
    if report["unreadable"]:
        console.print(f"Pictures that could not be had: {report['unreadable']}.")
    for note in report["notes"][:10]:
        console.print(f"  [yellow]![/] {escape(note)}")
    if report["pushed"] or report["already_there"]:
        console.print(f"New predictions: {report['pushed']}; there before: {report['already_there']}.")
        undo = f"tator polygons undo {report['build']} --project {project or 'N'}"
        console.print(f"To take them back: {undo}", soft_wrap=True)
