"""The verbs ``prelabel``: ask a model in words about a whole project, see what it found, and take it back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tator_ml.cli.serving import Home, read_settings
from tator_sdk.errors import TatorError
from tator_sdk.requests import Prelabel
from tator_sdk.settings import Settings
from training.cli.project_job import ProjectJob, checked_id, delete_pushed, made, project_of

prelabel = typer.Typer(
    name="prelabel", help="Predictions for a whole project, asked for in words.", no_args_is_help=True
)


def _help(field: str) -> str:
    return Prelabel.model_fields[field].description or ""


Project = Annotated[int | None, typer.Option("--project", "-p", help=_help("project"))]
Words = Annotated[str, typer.Option(metavar="WORDS", help=_help("prompt"))]
Model = Annotated[str | None, typer.Option(metavar="ID", help=_help("model"))]
MaxResults = Annotated[int | None, typer.Option(min=1, max=200, help=_help("max_results"))]
View = Annotated[int | None, typer.Option(min=1, help=_help("view"))]
Tasks = Annotated[list[int] | None, typer.Option("--task", "-t", metavar="T", help=_help("tasks"))]
Labelled = Annotated[bool, typer.Option("--labelled", help=_help("labelled"))]
Classify = Annotated[bool | None, typer.Option("--classify/--no-classify", help=_help("classify"))]
Seconds = Annotated[int, typer.Option(min=5, max=3600, help=_help("seconds"))]
InFlight = Annotated[int, typer.Option(min=1, max=16, help=_help("in_flight"))]
DryRun = Annotated[bool, typer.Option("--dry-run", help=_help("dry_run"))]
Here = Annotated[bool, typer.Option("--here", help="In this process, not as a job of a worker.")]
Detach = Annotated[bool, typer.Option("--detach", help="Start the job and do not wait for it.")]
Undo = Annotated[str | None, typer.Option(metavar="JOB", help="Delete the predictions of that job.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="With --undo: do not ask.")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(prelabel)


@prelabel.callback()
def _about() -> None:
    """Predictions for a whole project, asked for in words."""


@prelabel.command()
def qwen(
    project: Project = None,
    prompt: Words = "",
    model: Model = None,
    mode: Annotated[str | None, typer.Option(metavar="bbox|bbox_sam|point", help=_help("mode"))] = None,
    max_results: MaxResults = None,
    image_type: Annotated[str | None, typer.Option(help=_help("image_type"))] = None,
    extra_context: Annotated[str | None, typer.Option(help=_help("extra_context"))] = None,
    view: View = None,
    tasks: Tasks = None,
    labelled: Labelled = False,
    classify: Classify = None,
    segmenter: Annotated[str | None, typer.Option(help=_help("segmenter"))] = None,
    seconds: Seconds = 600,
    in_flight: InFlight = 2,
    dry_run: DryRun = False,
    here: Here = False,
    detach: Detach = False,
    undo: Undo = None,
    yes: Yes = False,
    home: Home = None,
) -> None:
    """Ask Qwen about the pictures of a project that nobody has labelled; what it finds appears as predictions.

    Nothing of the project changes but these predictions, and `--undo JOB` takes them back.

    Example: tator prelabel qwen --project 3 --prompt "car, bus" --dry-run

    Example: tator prelabel qwen --project 3 --prompt "car, bus" --mode bbox_sam
    """
    fields = {
        "prompt": prompt, "model": model, "mode": mode, "max_results": max_results, "image_type": image_type,
        "extra_context": extra_context, "view": view, "tasks": tuple(tasks or ()), "labelled": labelled,
        "classify": classify, "segmenter": segmenter, "seconds": seconds, "in_flight": in_flight, "dry_run": dry_run,
    }  # fmt: skip
    _run("qwen", project, fields, _Ways(here, detach, undo, yes), home)


@prelabel.command()
def sam3(
    project: Project = None,
    prompt: Words = "",
    model: Model = None,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help=_help("threshold"))] = None,
    max_results: MaxResults = None,
    output: Annotated[str | None, typer.Option(metavar="box|polygon|mask", help=_help("output"))] = None,
    view: View = None,
    tasks: Tasks = None,
    labelled: Labelled = False,
    classify: Classify = None,
    seconds: Seconds = 600,
    in_flight: InFlight = 2,
    dry_run: DryRun = False,
    here: Here = False,
    detach: Detach = False,
    undo: Undo = None,
    yes: Yes = False,
    home: Home = None,
) -> None:
    """Ask SAM 3 for all classes of a project, or for phrases, on the pictures that nobody has labelled.

    What it finds appears as predictions. Nothing else of the project changes, and `--undo JOB` takes them back.

    Example: tator prelabel sam3 --project 3 --dry-run

    Example: tator prelabel sam3 --project 3 --prompt "Car: red car; bus" --threshold 0.4 --output polygon
    """
    fields = {
        "prompt": prompt, "model": model, "threshold": threshold, "max_results": max_results, "output": output,
        "view": view, "tasks": tuple(tasks or ()), "labelled": labelled, "classify": classify, "seconds": seconds,
        "in_flight": in_flight, "dry_run": dry_run,
    }  # fmt: skip
    _run("sam3", project, fields, _Ways(here, detach, undo, yes), home)


@dataclass(frozen=True)
class _Ways:
    """Where the job runs, or which one is taken back."""

    here: bool
    detach: bool
    undo: str | None
    yes: bool


def _run(by: str, project: int | None, fields: dict[str, Any], ways: _Ways, home: Path | None) -> None:
    settings, console, verb = read_settings(home=home), Console(highlight=False), f"tator prelabel {by}"
    if ways.undo is not None:
        checked_id(settings, "prelabel", ways.undo)
        project = project or project_of(settings, "prelabel", ways.undo)
        if not delete_pushed(settings, console, ways.undo, project, ways.yes):
            console.print(f"Project {project} has no prediction of {ways.undo}: nothing was deleted.")
        return
    if project is None:
        raise TatorError(f"Say which project: {verb} --project N.")
    request = made(Prelabel, by=by, project=project, **fields)
    job = ProjectJob(settings, console, "prelabel", request, project, f"{verb} --undo")
    work = partial(_work, request, settings)
    report = job.run(ways.here, ways.detach, work, lambda _: not request.dry_run)
    if report is not None:
        show(console, report, f"{verb} --undo")


def _work(request: Prelabel, settings: Settings, job: Any) -> dict[str, Any]:
    from training.prelabel.job import prelabel as run

    return run(request, settings, job)


def show(console: Console, report: dict[str, Any], undo: str) -> None:
    """Print what a job found and did, and how to go on; ``undo`` is the command that takes it back."""
    project = report["project"]
    if not report["tasks"]:
        console.print(f"No task of project {project} was meant: all have annotations; --labelled takes those too.")
        return
    console.print(
        f"[bold]{report['objects']} objects in {report['offered_tasks']} of {report['tasks']} tasks[/] "
        f"(by {escape(report['model'])}, {report['mode']})."
    )
    table = Table("label", "objects", box=None, pad_edge=False)
    for label, count in report["counts"].items():
        table.add_row(escape(label), str(count))
    if report["counts"]:
        console.print(table)
    if report["unmatched"]:
        names = ", ".join(f"{escape(name)} {count}" for name, count in list(report["unmatched"].items())[:10])
        console.print(
            f"Named otherwise than any label, and left out: {names} (predicted_values on a label takes them)."
        )
    if report["garbled"]:
        console.print(f"Answers that could not be read: {report['garbled']}.")
    if report["cut"]:
        console.print(f"Answers that were cut short, of which the whole objects count: {report['cut']}.")
    if report["more"]:
        console.print(f"Left out because one picture had more than --max-results: {report['more']}.")
    if report["unreadable"]:
        console.print(f"Pictures that could not be had: {report['unreadable']}.")
    for note in report["notes"][:10]:
        console.print(f"  [yellow]![/] {escape(note)}", soft_wrap=True)
    if report["dry_run"]:
        console.print("Nothing was pushed; without --dry-run it would be.")
        return
    there = f"; there before: {report['already_there']}" if report["already_there"] else ""
    dropped = f"; [red]Label Studio dropped {report['dropped']}[/]" if report["dropped"] else ""
    console.print(f"New predictions: {report['pushed']}{there}{dropped}.")
    if report["offered_tasks"] and report["project_shows"] not in (None, report["model_version"]):
        console.print(
            f"To see them, choose the predictions [bold]{escape(report['model_version'])}[/] under Settings → "
            "Annotation.",
            soft_wrap=True,
        )
    if report["pushed"] or report["already_there"]:
        console.print(f"To take them back: {undo} {report['job']}", soft_wrap=True)
