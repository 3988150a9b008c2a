"""Verbs that connect: ``connect``, ``doctor``, ``label-config``, ``assists``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from label_config.build import build, template_names
from label_config.errors import LabelConfigError
from tator_sdk.cli import datasets, exporting, importing, running, showing_settings
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

Project = Annotated[int, typer.Option("--project", "-p", help="The project's number in Label Studio's address.")]
Url = Annotated[str | None, typer.Option(help="Label Studio's address. Default: LABEL_STUDIO_URL or port 8080 here.")]
Token = Annotated[
    str | None, typer.Option(help="A personal access token or legacy token. Default: LABEL_STUDIO_API_KEY.")
]
Backend = Annotated[
    str | None, typer.Option(help="Tator's address as Label Studio reaches it. Default: port 9090 here.")
]

MARKS = {
    "done": "[green]✓[/]", "kept": "[green]✓[/]", "ok": "[green]✓[/]",
    "advice": "[yellow]i[/]", "hint": "[yellow]i[/]",
    "failed": "[red]✗[/]", "bad": "[red]✗[/]",
}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(connect)
    app.command()(doctor)
    app.command("label-config")(label_config)
    app.command()(assists)
    running.register(app)
    importing.register(app)
    exporting.register(app)
    datasets.register(app)
    showing_settings.register(app)


def _settings(url: str | None, token: str | None) -> Settings:
    chosen = {"label_studio_url": url, "label_studio_api_key": token}
    return Settings.model_validate(
        {**Settings().model_dump(), **{name: value for name, value in chosen.items() if value is not None}}
    )


def connect(
    project: Project,
    url: Url = None,
    token: Token = None,
    backend: Backend = None,
    live: Annotated[
        bool, typer.Option(help="Have Label Studio ask Tator when a task is opened, so that pictures are ready.")
    ] = True,
) -> None:
    """Connect a project of an existing Label Studio to Tator, or repair its connection.

    Adds the ML backend with interactive pre-annotations, gives the webhook its header and checks that the labelling
    configuration has tags Tator can serve. Safe to repeat; it never changes your labelling configuration.

    Example: LABEL_STUDIO_API_KEY=… tator connect --project 3
    """
    from rich.syntax import Syntax

    from tator_sdk.connect import Connection

    settings = _settings(url, token)
    address = (backend or settings.backend_url).rstrip("/")
    console = Console()
    failed = False
    for step in Connection(settings, project, address, live).run():
        failed |= step.outcome == "failed"
        console.print(f"{MARKS[step.outcome]} {step.name}: {escape(step.said)}", highlight=False)
        if step.snippet:
            console.print(Syntax(step.snippet, "xml", word_wrap=True, padding=(0, 2)))
    if failed:
        raise typer.Exit(1)
    console.print(
        f"Open {settings.label_studio_url}/projects/{project}/data, switch on Auto-Annotation and click an object."
    )


def doctor(
    project: Annotated[int | None, typer.Option("--project", "-p", help="Check this project's connection too.")] = None,
    url: Url = None,
    token: Token = None,
    backend: Backend = None,
) -> None:
    """Check the whole chain, one line each, and say how to mend what is wrong.

    Exits with 1 when something does not work.
    """
    from tator_sdk.doctor import examine

    settings = _settings(url, token)
    console = Console()
    bad = 0
    for check in examine(settings, (backend or settings.backend_url).rstrip("/"), project):
        bad += check.level == "bad"
        console.print(f"{MARKS[check.level]} {check.name}: {escape(check.said)}", highlight=False)
        if check.mend:
            console.print(f"    → {escape(check.mend)}", highlight=False)
    if bad:
        raise typer.Exit(1)


def label_config(
    classes: Annotated[str, typer.Option(help="Class names, separated by commas, or a text file with one a line.")],
    template: Annotated[str, typer.Option(help=f"One of: {', '.join(template_names())}.")] = "boxes",
    project: Annotated[int | None, typer.Option("--project", "-p", help="Its number, for the live strip.")] = None,
    backend: Annotated[str | None, typer.Option(help="Tator's address as browsers reach it, for the strip.")] = None,
    strip: Annotated[bool, typer.Option(help="Include the live strip.")] = True,
) -> None:
    """Print a labelling configuration for your classes, to paste under Settings → Labeling Interface.

    Example: tator label-config --classes "Car, Person, Dog" --template all
    """
    from tator_sdk.connect import strip_url

    path = Path(classes)
    text = path.read_text() if path.suffix == ".txt" and path.exists() else classes.replace(",", "\n")
    names = [name.strip() for name in text.splitlines() if name.strip()]
    settings = Settings()
    address = (backend or settings.backend_url).rstrip("/")
    try:
        typer.echo(build(template, names, strip_url(settings, address, project) if strip else None, project=project))
    except LabelConfigError as error:
        raise TatorError(str(error)) from error


def assists(
    project: Project,
    chosen: Annotated[
        str | None, typer.Argument(help="refine, classify, both with a comma, none, or default. Without it: show.")
    ] = None,
    backend: Backend = None,
) -> None:
    """Show or choose what a prompt gets in a project: a refined box, a class, or both.

    `model_assist` on a tag of the labelling configuration goes before.

    Example: tator assists --project 3 refine
    """
    from tator_sdk.control import ControlApi

    words: dict[str, list[str] | None] = {"none": [], "default": None}
    api = ControlApi(Settings(), backend)
    if chosen is None:
        now = api.get(f"projects/{project}")["assists"]
    else:
        wanted = words.get(chosen, [word.strip() for word in chosen.split(",")])
        now = api.put(f"projects/{project}", {"assists": wanted})["assists"]
    said = "refine, classify (the default)" if now is None else ", ".join(now) or "none"
    typer.echo(f"project {project}: {said}")
