"""The verb ``tweak``: tighten the boxes of a project, see what changed, and take it back."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tator_ml.cli.serving import Home, read_settings
from tator_sdk.errors import TatorError
from tator_sdk.requests import Tweak
from tator_sdk.settings import Settings
from training.cli.project_job import ProjectJob, made

UNDO = "tator tweak --undo"


def _help(field: str) -> str:
    return Tweak.model_fields[field].description or ""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(tweak)


def tweak(
    project: Annotated[int | None, typer.Option("--project", "-p", help=_help("project"))] = None,
    classes: Annotated[list[str] | None, typer.Option("--class", "-c", metavar="C", help=_help("classes"))] = None,
    view: Annotated[int | None, typer.Option(min=1, help=_help("view"))] = None,
    tasks: Annotated[list[int] | None, typer.Option("--task", "-t", metavar="T", help=_help("tasks"))] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help=_help("in_place"))] = False,
    classify: Annotated[bool, typer.Option("--classify", help=_help("classify"))] = False,
    segmenter: Annotated[str | None, typer.Option(help=_help("segmenter"))] = None,
    in_flight: Annotated[int, typer.Option(min=1, max=16, help=_help("in_flight"))] = 2,
    pictures: Annotated[int, typer.Option(min=0, max=200, help=_help("pictures"))] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help=_help("dry_run"))] = False,
    here: Annotated[bool, typer.Option("--here", help="In this process, not as a job of a worker.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start the job and do not wait for it.")] = False,
    undo: Annotated[str | None, typer.Option(metavar="JOB", help="Take back whatever that job did.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --undo: do not ask.")] = False,
    home: Home = None,
) -> None:
    """Tighten the boxes that stand in a project: box → mask → box, kept as drawn where the segmenter is not sure.

    Annotations stay as they are and tight boxes appear as predictions beside them, unless --in-place changes them.
    `--undo JOB` takes either back, but leaves annotations that people changed since.

    Example: tator tweak --project 3 --class car --dry-run --pictures 20

    Example: tator tweak --project 3 --view 12 --in-place
    """
    settings, console = read_settings(home=home), Console(highlight=False)
    if undo is not None:
        from training.cli.tweak_undo import take_back

        take_back(settings, console, undo, project, yes)
        return
    if project is None:
        raise TatorError("Say which project: tator tweak --project N.")
    request = made(
        Tweak, project=project, classes=tuple(classes or ()), view=view, tasks=tuple(tasks or ()), in_place=in_place,
        classify=classify, segmenter=segmenter, in_flight=in_flight, pictures=pictures, dry_run=dry_run,
    )  # fmt: skip
    job = ProjectJob(settings, console, "tweak", request, project, UNDO)
    report = job.run(
        here, detach, lambda local: _work(request, settings, local), lambda one: _began(settings, request, one)
    )
    if report is not None:
        show(console, settings, report)


def _work(request: Tweak, settings: Settings, job: Any) -> dict[str, Any]:
    from training.tweak.job import tweak as run

    return run(request, settings, job)


def _began(settings: Settings, request: Tweak, job_id: str) -> bool:
    """Whether a job may have changed something; a queued one may have run on another host."""
    from training.tweak.apply import CHANGES_FILE
    from training.tweak.look import FOUND_FILE

    if request.dry_run or "-here-" not in job_id:
        return not request.dry_run
    begun = CHANGES_FILE if request.in_place else FOUND_FILE
    return (settings.home / "jobs" / job_id / begun).exists()


def show(console: Console, settings: Settings, report: dict[str, Any]) -> None:
    """Print what a job found and did, and how to go on."""
    project = report["project"]
    if not report["boxes"]:
        console.print(f"There was no box to tighten in project {project}: {_left_out(report) or 'none stands there'}.")
        _show_notes(console, report)
        return
    left_out = _left_out(report)
    said = f"{_count(report['boxes'], 'box')} in {_count(report['tasks'], 'task')}"
    console.print(f"[bold]{said}[/]" + (f" (besides: {left_out})" if left_out else ""))
    console.print(per_class(report), "")
    if report["moved_most"]:
        console.print(_moved_most(settings, report), "")
    _show_notes(console, report)
    if report["sheet"]:
        console.print(f"Before (orange) and after (green): {escape(report['sheet'])}", soft_wrap=True)
    _show_effect(console, report)


def per_class(report: dict[str, Any]) -> Table:
    """What came of each class. IoU compares the boxes before and after, so 1 means that nothing moved."""
    table = Table("class", box=None, pad_edge=False)
    for name in ("boxes", "moved", "tight already", "kept", "IoU, all", "IoU, moved", "least"):
        table.add_column(name, justify="right")
    table.add_column("kept because")
    offers = bool(report["offered"])
    if offers:
        table.add_column("other class offered")
    for name, one in [*report["classes"].items(), ("[bold]all[/]", report)]:
        moved = "" if one["iou_moved"] is None else f"{one['iou_moved']:.3f}"
        cells = [
            name if one is report else escape(name), str(one["boxes"]), str(one["moved"]), str(one["tight"]),
            str(one["kept"]), f"{one['iou']:.3f}", moved, f"{one['iou_least']:.2f}", _counted(one["why"]),
        ]  # fmt: skip
        table.add_row(*cells, *([escape(_counted(one["offered"]))] if offers else []))
    return table


def _moved_most(settings: Settings, report: dict[str, Any]) -> Table:
    table = Table("moved most", "class", "IoU", "region", box=None, pad_edge=False)
    table.columns[0].no_wrap = True  # it is there to be clicked
    for box in report["moved_most"][:10]:
        link = f"{settings.label_studio_url}/projects/{report['project']}/data?task={box['task']}"
        table.add_row(link, escape(box["label"]), f"{box['iou']:.2f}", escape(box["region"]))
    return table


def _show_notes(console: Console, report: dict[str, Any]) -> None:
    for note in report["notes"][:10]:
        console.print(f"  [yellow]![/] {escape(note)}", soft_wrap=True)
    if len(report["notes"]) > 10:
        console.print(f"  and {len(report['notes']) - 10} more: `tator jobs log {report['job']}`")


def _show_effect(console: Console, report: dict[str, Any]) -> None:
    changing = report["moved"] + sum(report["offered"].values())
    if not changing:
        console.print("Nothing is to be changed.")
        return
    if report["dry_run"]:
        console.print("Nothing was changed; without --dry-run it would be.")
        return
    if report["in_place"]:
        before = f" ({report['changed_before']} by an earlier attempt)" if report["changed_before"] else ""
        left = f"; left as they are: {len(report['skipped'])}" if report["skipped"] else ""
        console.print(f"Annotations changed: {report['changed']}{before}{left}.")
    else:
        there = f"; there before: {report['already_there']}" if report["already_there"] else ""
        dropped = f"; [red]Label Studio dropped {report['dropped']}[/]" if report["dropped"] else ""
        console.print(f"New predictions: {report['pushed']}{there}{dropped}.")
        if report["project_shows"] != report["model_version"]:
            console.print(
                f"To see them, choose the predictions [bold]{escape(report['model_version'])}[/] under Settings → "
                "Annotation, or open a task and look at its predictions.",
                soft_wrap=True,
            )
    console.print(f"To take back whatever was changed: {UNDO} {report['job']}", soft_wrap=True)


def _left_out(report: dict[str, Any]) -> str:
    parts = [f"{count} {reason}" for reason, count in report["left"].items()]
    if report["unreadable"]:
        parts.append(f"{_count(report['unreadable'], 'box')} whose picture could not be had")
    if report["several_annotations"]:
        count = _count(report["several_annotations"], "task")
        parts.append(f"older annotations of {count}: a prediction follows the newest")
    return ", ".join(parts)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _count(count: int, noun: str) -> str:
    return f"1 {noun}" if count == 1 else f"{count} {noun}{'es' if noun.endswith('x') else 's'}"
