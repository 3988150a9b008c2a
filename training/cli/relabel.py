"""The verb ``relabel``: check the classes of a whole project, see the doubtful ones, and take the offers back."""

from __future__ import annotations

import json
import re
import secrets
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tator_ml import jobs
from tator_ml.cli.jobs import follow, refuse_while_open, worker_lives
from tator_ml.cli.serving import Home, read_settings
from tator_sdk.errors import TatorError
from tator_sdk.requests import Relabel
from tator_sdk.settings import Settings

JOB = re.compile(r"relabel-[A-Za-z0-9-]{1,80}")
"""A job's id. Other predictions (``…/check`` of submitted annotations) have other endings, and are never deleted."""


def _help(field: str) -> str:
    return Relabel.model_fields[field].description or ""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(relabel)


def relabel(
    project: Annotated[int | None, typer.Option("--project", "-p", help=_help("project"))] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help=_help("dry_run"))] = False,
    limit: Annotated[int, typer.Option(help=_help("limit"))] = 0,
    least_probability: Annotated[
        float, typer.Option(min=0, max=1, help=_help("least_probability"))
    ] = Relabel.model_fields["least_probability"].default,
    here: Annotated[bool, typer.Option("--here", help="In this process, not as a job of a worker.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start the job and do not wait for it.")] = False,
    undo: Annotated[str | None, typer.Option(metavar="JOB", help="Delete the predictions of that job.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --undo: do not ask.")] = False,
    home: Home = None,
) -> None:
    """Correct the classes of a whole project: offer the active head's class where it surely disagrees.

    Annotations stay as they are. What is doubtful appears as predictions, to be looked at the most doubtful first;
    `--undo JOB` takes them back.
    """
    settings, console = read_settings(home=home), Console(highlight=False)
    if undo is not None:
        _undo(settings, console, undo, project, yes)
        return
    if project is None:
        raise TatorError("Say which project: tator relabel --project N.")
    if here and detach:
        raise TatorError("--here works in this process, so there is nothing to detach from; leave one of them out.")
    request = Relabel(project=project, dry_run=dry_run, limit=limit, least_probability=least_probability)
    report: dict[str, Any] | None
    if here or not (detach or worker_lives(settings)):
        report = _run_here(settings, console, request)
    else:
        report = _run_queued(settings, console, request, detach)
    if report is not None:
        show(console, settings, report)


def _run_here(settings: Settings, console: Console, request: Relabel) -> dict[str, Any]:
    from training.job import LocalJob
    from training.relabel import relabel as run

    job_id = f"relabel-{request.project}-here-{secrets.token_hex(4)}"
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, transient=True) as bars:
            bar = bars.add_task("starting", total=None)

            def progress(done: int, total: int, what: str) -> None:
                bars.update(bar, description=what, completed=done, total=total or None)

            return run(request, settings, LocalJob(settings, job_id, progress))
    except KeyboardInterrupt:
        console.print(_how_to_undo(job_id))
        raise


def _run_queued(settings: Settings, console: Console, request: Relabel, detach: bool) -> dict[str, Any] | None:
    wanted = request.model_dump(mode="json")
    title = f"classes of project {request.project}" + (", dry run" if request.dry_run else "")
    record = jobs.start(
        settings, "relabel", wanted, project=request.project, title=title, unique=f"relabel:{request.project}"
    )
    if record.request != wanted:
        console.print(f"{record.id} checks this project already; yours starts when it has ended (`tator jobs list`).")
        return None
    if detach:
        console.print(f"{record.id} is {record.status}; `tator jobs show {record.id}` shows how it stands.")
        return None
    record = follow(settings, record.id, console)
    if record.over and record.status != "done":
        console.print(_how_to_undo(record.id))
        raise typer.Exit(1)
    return record.result


def show(console: Console, settings: Settings, report: dict[str, Any]) -> None:
    """Print what a check found, and how to go on."""
    project, count = report["project"], report["disagreements"]
    if not report["boxes"]:
        console.print(f"There was no box to check in project {project}: {_left_out(report) or 'none is labelled'}.")
        return
    said = f"{_boxes(report['boxes'])} in {_tasks(report['tasks'])} checked by {report['head']}"
    left_out = _left_out(report)
    console.print(f"[bold]{escape(said)}[/]" + (f" (besides: {left_out})" if left_out else ""))
    for note in report["notes"][:10]:
        console.print(f"  [yellow]![/] {escape(note)}")
    if not count:
        console.print("It surely disagrees with none of them: there is nothing to correct.")
        return
    console.print(f"Doubtful: {_boxes(count)} in {_tasks(report['doubtful_tasks'])}.\n")
    pairs = Table("labelled", "head says", "boxes", box=None, pad_edge=False)
    for row in report["pairs"][:20]:
        pairs.add_row(escape(row["from"]), escape(row["to"]), str(row["count"]))
    console.print(pairs, "")
    doubtful = Table("the most doubtful", "labelled", "head says", "region", box=None, pad_edge=False)
    doubtful.columns[0].no_wrap = True  # it is there to be clicked
    for row in report["doubtful"]:
        link = f"{settings.label_studio_url}/projects/{project}/data?task={row['task']}"
        given, said = (f"{escape(row[name])} {row[share]:.2f}" for name, share in
                       (("from", "given"), ("to", "probability")))  # fmt: skip
        doubtful.add_row(link, given, said, escape(row["region"]))
    console.print(doubtful, "")
    if report["dry_run"]:
        console.print(f"Nothing was pushed; without --dry-run there are predictions for {_tasks(report['offered'])}.")
        return
    there = f"; there before: {report['already_there']}" if report["already_there"] else ""
    dropped = f"; [red]Label Studio dropped {report['dropped']}[/]" if report["dropped"] else ""
    console.print(f"New predictions: {report['pushed']}{there}{dropped}.")
    console.print(_how_to_see(report), soft_wrap=True)  # they hold what is there to be copied
    console.print(_how_to_undo(report["job"]), soft_wrap=True)


def _left_out(report: dict[str, Any]) -> str:
    parts = []
    if report["unknown"]:
        parts.append(f"{_boxes(report['unknown'])} of classes that the head does not know")
    if report["unreadable"]:
        parts.append(f"{_boxes(report['unreadable'])} whose picture could not be had")
    return ", ".join(parts)


def _boxes(count: int) -> str:
    return "1 box" if count == 1 else f"{count} boxes"


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"


def _how_to_see(report: dict[str, Any]) -> str:
    order = "order the Data Manager by prediction score, ascending: the most doubtful come first"
    shows = report["project_shows"]
    if shows is None or shows == report["model_version"]:
        return f"To see them, {order}."
    # seen in Label Studio 1.23.2: the Data Manager's score is that of this one version, and empty for all others
    return (
        f"To see them, choose the predictions [bold]{escape(report['model_version'])}[/] under Settings → Annotation "
        f"(now: {escape(repr(shows)) if shows else 'none'}; go back to it afterwards), then {order}."
    )


def _how_to_undo(job_id: str) -> str:
    return f"To take back whatever was pushed: tator relabel --undo {job_id}"


def _undo(settings: Settings, console: Console, job_id: str, project: int | None, yes: bool) -> None:
    """Delete exactly the predictions of a job."""
    from tator_sdk.studio import open_studio, prediction_ids, sentences

    if not JOB.fullmatch(job_id):
        raise TatorError(
            f"'{job_id}' is not the whole id of a relabel job, such as relabel-3-7f2a; see `tator jobs list`."
        )
    refuse_while_open(settings, job_id)
    project = project or _project_of(settings, job_id)
    studio: Any = open_studio(settings)
    url = settings.label_studio_url
    numbers = [
        number for number, _ in prediction_ids(studio, url, project, lambda version: version.endswith(f"/{job_id}"))
    ]
    if not numbers:
        console.print(f"Project {project} has no prediction of {job_id}: nothing was deleted.")
        return
    if not yes and not typer.confirm(f"Delete all predictions of {job_id} in project {project} ({len(numbers)})?"):
        console.print("Nothing was deleted.")
        raise typer.Exit(1)
    with sentences(url), Progress(console=console, transient=True) as bars:
        for number in bars.track(numbers, description="deleting"):
            studio.predictions.delete(number)
    console.print(f"Predictions deleted from project {project}: {len(numbers)} of {job_id}; annotations stay.")


def _project_of(settings: Settings, job_id: str) -> int:
    try:
        return int(json.loads((settings.home / "jobs" / job_id / "report.json").read_text())["project"])
    except (OSError, ValueError, KeyError):
        pass
    if found := re.match(r"relabel-(\d+)-", job_id):
        return int(found[1])
    raise TatorError(f"It is not known which project {job_id} belongs to; add --project N.")
