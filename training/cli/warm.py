"""The verb ``warm``: encode a whole project ahead, over all workers."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from tator_ml.cli.jobs import follow, worker_lives
from tator_ml.cli.serving import Home, read_settings
from tator_sdk.cli.bars import progress_bar
from tator_sdk.errors import TatorError
from tator_sdk.requests import WarmUp
from tator_sdk.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(warm)


def warm(
    project: Annotated[
        int | None, typer.Argument(metavar="PROJECT", help="The project's number in Label Studio.")
    ] = None,
    named: Annotated[int | None, typer.Option("--project", "-p", help="The same, as other verbs take it.")] = None,
    workers: Annotated[
        int, typer.Option(min=0, max=256, help="Parts to cut it into. Default: one for each worker that lives.")
    ] = 0,
    segmenter: Annotated[str | None, typer.Option(help=WarmUp.model_fields["segmenter"].description or "")] = None,
    in_flight: Annotated[int, typer.Option(min=1, max=64, help=WarmUp.model_fields["in_flight"].description or "")] = 4,
    here: Annotated[bool, typer.Option("--here", help="In this process, not as jobs of workers.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start the jobs and do not wait for them.")] = False,
    home: Home = None,
) -> None:
    """Encode all pictures of a project ahead, so that every first click is a warm one.

    Pictures that are encoded already are left out, so it may be stopped and begun again at any time.

    Example: tator warm --project 3 --detach
    """
    settings, console = read_settings(home=home), Console(highlight=False, soft_wrap=True)
    if here and (detach or workers):
        raise TatorError("--here works in this process alone; leave --detach and --workers out.")
    number = named if project is None else project
    if number is None:
        raise TatorError("Say which project: tator warm --project N.")
    request = WarmUp(project=number, segmenter=segmenter, in_flight=in_flight)
    if here or not (detach or worker_lives(settings)):
        _show(console, [_run_here(settings, console, request)])
        return
    reports = _run_queued(settings, console, request, workers, detach)
    if reports:
        _show(console, reports)


def _run_here(settings: Settings, console: Console, request: WarmUp) -> dict[str, Any]:
    from training.job import LocalJob
    from training.warm import warm as run

    with progress_bar(console, "starting") as progress:
        return run(request, settings, LocalJob(settings, f"warm-{request.project}-{secrets.token_hex(4)}", progress))


def _run_queued(
    settings: Settings, console: Console, request: WarmUp, shards: int, detach: bool
) -> list[dict[str, Any]]:
    from tator_ml.launch import launch

    records = launch(settings, request, shards=shards)
    if detach:
        for one in records:
            console.print(f"{one.id} is {one.status}; `tator jobs show {one.id}` shows how it stands.")
        return []
    ended = [follow(settings, one.id, console) for one in records]
    if any(one.over and one.status != "done" for one in ended):
        raise typer.Exit(1)
    return [one.result for one in ended if one.result]


def _show(console: Console, reports: list[dict[str, Any]]) -> None:
    """Print what was done."""
    count = {name: sum(one[name] for one in reports) for name in ("pictures", "encoded", "there", "unreadable")}
    said = f"{count['pictures']} pictures: {count['encoded']} encoded now, {count['there']} before"
    if count["unreadable"]:
        said += f", {count['unreadable']} could not be had"
    console.print(f"[bold]{said}[/] (with {escape(str(reports[0]['segmenter']))}).")
    for note in [note for one in reports for note in one["notes"]][:10]:
        console.print(f"  [yellow]![/] {escape(note)}")
