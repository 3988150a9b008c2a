"""The verb ``prelabel``: ask a model in words about a whole project, see what it found, and take it back."""

from __future__ import annotations

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

UNDO = "tator prelabel qwen --undo"

prelabel = typer.Typer(
    name="prelabel", help="Predictions for a whole project, asked for in words.", no_args_is_help=True
)


def _help(field: str) -> str:
    return Prelabel.model_fields[field].description or ""


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(prelabel)


@prelabel.callback()
def _about() -> None:
    """Predictions for a whole project, asked for in words."""


@prelabel.command()
def qwen(
    project: Annotated[int | None, typer.Option("--project", "-p", help=_help("project"))] = None,
    prompt: Annotated[str, typer.Option(metavar="WORDS", help=_help("prompt"))] = "",
    model: Annotated[str | None, typer.Option(metavar="ID", help=_help("model"))] = None,
    mode: Annotated[str | None, typer.Option(metavar="bbox|bbox_sam|point", help=_help("mode"))] = None,
    max_results: Annotated[int | None, typer.Option(min=1, max=50, help=_help("max_results"))] = None,
    image_type: Annotated[str | None, typer.Option(help=_help("image_type"))] = None,
    extra_context: Annotated[str | None, typer.Option(help=_help("extra_context"))] = None,
    view: Annotated[int | None, typer.Option(min=1, help=_help("view"))] = None,
    tasks: Annotated[list[int] | None, typer.Option("--task", "-t", metavar="T", help=_help("tasks"))] = None,
    labelled: Annotated[bool, typer.Option("--labelled", help=_help("labelled"))] = False,
    classify: Annotated[bool | None, typer.Option("--classify/--no-classify", help=_help("classify"))] = None,
    segmenter: Annotated[str | None, typer.Option(help=_help("segmenter"))] = None,
    seconds: Annotated[int, typer.Option(min=5, max=3600, help=_help("seconds"))] = 600,
    in_flight: Annotated[int, typer.Option(min=1, max=16, help=_help("in_flight"))] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help=_help("dry_run"))] = False,
    here: Annotated[bool, typer.Option("--here", help="In this process, not as a job of a worker.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start the job and do not wait for it.")] = False,
    undo: Annotated[str | None, typer.Option(metavar="JOB", help="Delete the predictions of that job.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --undo: do not ask.")] = False,
    home: Home = None,
) -> None:
    """Ask Qwen about the pictures of a project that nobody has labelled; what it finds appears as predictions.

    Nothing of the project changes but these predictions, and `--undo JOB` takes them back.

    Example: tator prelabel qwen --project 3 --prompt "car, bus" --dry-run

    Example: tator prelabel qwen --project 3 --prompt "car, bus" --mode bbox_sam
    """
    settings, console = read_settings(home=home), Console(highlight=False)
    if undo is not None:
        checked_id(settings, "prelabel", undo)
        project = project or project_of(settings, "prelabel", undo)
        if not delete_pushed(settings, console, undo, project, yes):
            console.print(f"Project {project} has no prediction of {undo}: nothing was deleted.")
        return
    if project is None:
        raise TatorError("Say which project: tator prelabel qwen --project N.")
    request = made(
        Prelabel, project=project, prompt=prompt, model=model, mode=mode, max_results=max_results,
        image_type=image_type, extra_context=extra_context, view=view, tasks=tuple(tasks or ()), labelled=labelled,
        classify=classify, segmenter=segmenter, seconds=seconds, in_flight=in_flight, dry_run=dry_run,
    )  # fmt: skip
    title = f"'{prompt[:40] or 'all classes'}' in project {project}" + (", dry run" if dry_run else "")
    job = ProjectJob(settings, console, "prelabel", request, project, title, UNDO)
    report = job.run(here, detach, lambda local: _work(request, settings, local), lambda _: not dry_run)
    if report is not None:
        show(console, report)


def _work(request: Prelabel, settings: Settings, job: Any) -> dict[str, Any]:
    from training.prelabel.job import prelabel as run

    return run(request, settings, job)


def show(console: Console, report: dict[str, Any]) -> None:
    """Print what a job found and did, and how to go on."""
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
        console.print(f"To take them back: {UNDO} {report['job']}", soft_wrap=True)
