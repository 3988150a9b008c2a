"""The verb ``relabel``: check the classes of a whole project, see the doubtful ones, and take the offers back."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tator_ml.cli.serving import Home, read_settings
from tator_sdk.errors import TatorError
from tator_sdk.requests import Relabel
from tator_sdk.settings import Settings
from training.cli.project_job import ProjectJob, checked_id, delete_pushed, project_of

UNDO = "tator relabel --undo"


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
    request = Relabel(project=project, dry_run=dry_run, limit=limit, least_probability=least_probability)
    job = ProjectJob(settings, console, "relabel", request, project, UNDO)
    report = job.run(here, detach, lambda local: _work(request, settings, local), lambda _: not dry_run)
    if report is not None:
        show(console, settings, report)


def _work(request: Relabel, settings: Settings, job: Any) -> dict[str, Any]:
    from training.relabel import relabel as run

    return run(request, settings, job)


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
    console.print(f"To take back whatever was pushed: {UNDO} {report['job']}", soft_wrap=True)


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


def _undo(settings: Settings, console: Console, job_id: str, project: int | None, yes: bool) -> None:
    """Delete exactly the predictions of a job."""
    checked_id(settings, "relabel", job_id)
    project = project or project_of(settings, "relabel", job_id)
    if not delete_pushed(settings, console, job_id, project, yes):
        console.print(f"Project {project} has no prediction of {job_id}: nothing was deleted.")
