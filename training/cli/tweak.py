"""The verb ``tweak``: tighten the boxes of a project, see what changed, and take it back."""

from __future__ import annotations

import json
import re
import secrets
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from tator_ml import jobs
from tator_ml.cli.jobs import follow, progress_columns, worker_lives
from tator_ml.cli.serving import Home, read_settings
from tator_sdk.cli.options import option_name
from tator_sdk.errors import TatorError
from tator_sdk.requests import Tweak
from tator_sdk.settings import Settings

JOB = re.compile(r"tweak-[A-Za-z0-9-]{1,80}")
A_NIGHT_SECONDS = 24 * 3600


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
    if here and detach:
        raise TatorError("--here works in this process, so there is nothing to detach from; leave one of them out.")
    request = _request(
        project=project, classes=tuple(classes or ()), view=view, tasks=tuple(tasks or ()), in_place=in_place,
        classify=classify, segmenter=segmenter, in_flight=in_flight, pictures=pictures, dry_run=dry_run,
    )  # fmt: skip
    report: dict[str, Any] | None
    if here or not (detach or worker_lives(settings)):
        report = _run_here(settings, console, request)
    else:
        report = _run_queued(settings, console, request, detach)
    if report is not None:
        show(console, settings, report)


def _request(**fields: Any) -> Tweak:
    try:
        return Tweak(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        hint = option_name(str(first["loc"][0])) if first["loc"] else None
        raise typer.BadParameter(first["msg"].removeprefix("Value error, "), param_hint=hint) from error


def _run_here(settings: Settings, console: Console, request: Tweak) -> dict[str, Any]:
    from training.job import LocalJob
    from training.tweak.apply import CHANGES_FILE
    from training.tweak.job import tweak as run
    from training.tweak.look import FOUND_FILE

    job_id = f"tweak-{request.project}-here-{secrets.token_hex(4)}"
    try:
        with Progress(*progress_columns(), console=console, transient=True, disable=not console.is_terminal) as bars:
            bar = bars.add_task("starting", total=None)

            def progress(done: int, total: int, what: str) -> None:
                bars.update(bar, description=escape(what), completed=done, total=total or None)

            return run(request, settings, LocalJob(settings, job_id, progress))
    except (KeyboardInterrupt, TatorError):
        begun = CHANGES_FILE if request.in_place else FOUND_FILE
        if not request.dry_run and (settings.home / "jobs" / job_id / begun).exists():
            console.print(_how_to_undo(job_id), soft_wrap=True)
        raise


def _run_queued(settings: Settings, console: Console, request: Tweak, detach: bool) -> dict[str, Any] | None:
    wanted = request.model_dump(mode="json")
    title = f"boxes of project {request.project}" + (", dry run" if request.dry_run else "")
    record = jobs.start(
        settings, "tweak", wanted, project=request.project, title=title, unique=f"tweak:{request.project}",
        timeout_seconds=A_NIGHT_SECONDS,
    )  # fmt: skip
    if record.request != wanted:
        console.print(f"{record.id} works on this project already; yours starts when it has ended (`tator jobs list`).")
        return None
    if detach:
        console.print(f"{record.id} is {record.status}; `tator jobs show {record.id}` shows how it stands.")
        return None
    record = follow(settings, record.id, console)
    if record.over and record.status != "done":
        if not request.dry_run:
            console.print(_how_to_undo(record.id), soft_wrap=True)
        raise typer.Exit(1)
    return record.result


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
    console.print(_how_to_undo(report["job"]), soft_wrap=True)


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


def _how_to_undo(job_id: str) -> str:
    return f"To take back whatever was changed: tator tweak --undo {job_id}"


def project_of(settings: Settings, job_id: str) -> int:
    """The project that a job worked on.

    Raises:
        TatorError: nothing says so.
    """
    try:
        return int(json.loads((settings.home / "jobs" / job_id / "report.json").read_text())["project"])
    except (OSError, ValueError, KeyError):
        pass
    if found := re.match(r"tweak-(\d+)-", job_id):
        return int(found[1])
    raise TatorError(f"It is not known which project {job_id} belongs to; add --project N.")
