"""Verbs about the runs of a kind of model, and which one is active: those of ``models qwen`` and ``models sam3``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tator_ml.cli.heads import figure, moment
from tator_ml.cli.options import Project, SomeProject, say
from tator_ml.cli.serving import Home, read_settings
from tator_ml.reports import part
from tator_sdk.settings import Settings

if TYPE_CHECKING:
    from tator_ml.runs import Entry, RunRegistry

Id = Annotated[str, typer.Argument(metavar="ID", help="The run's id, or its beginning; base for the untuned model.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
AsJson = Annotated[bool, typer.Option("--json", help="Everything, for programs.")]

MOST_CLASSES = 6


@dataclass(frozen=True)
class Kind:
    """A kind of model as the verbs know it.

    Attributes:
        open: its registry in an installation; imports it, which is no part of the other verbs' start.
        details: what ``show --json`` says of an entry besides metadata and metrics.
        rows: what ``show`` says of one, by title.
    """

    open: Callable[[Settings], RunRegistry[Any, Any]]
    details: Callable[[Any], Mapping[str, Any]]
    rows: Callable[[Any], Mapping[str, Any]]


def add_run_verbs(group: typer.Typer, kind: Kind) -> None:
    """Add ``list``, ``show``, ``activate``, ``rollback``, ``history``, ``download`` and ``delete``."""
    _add_looking(group, kind)
    _add_choosing(group, kind)
    _add_keeping(group, kind)


def figures_table(entry: Entry[Any], registry: RunRegistry[Any, Any]) -> Table | None:
    """What the model and the active one reached on the same held-out pictures; None without figures."""
    gate = part(entry.metrics, "gate")
    mine, theirs = part(gate, "candidate"), part(gate, "active")
    if not mine:
        return None
    table = Table("", "this model", str(gate.get("active_id", "active")), box=None, pad_edge=False)
    for name, title in registry.figures.items():
        table.add_row(title, figure(mine.get(name)), figure(theirs.get(name)))
    for name, value in part(mine, "per_class").items():
        table.add_row(f"AP of {escape(name)}", figure(value), figure(part(theirs, "per_class").get(name)))
    table.caption = f"on {gate.get('pictures')} held-out pictures"
    return table


def _add_looking(group: typer.Typer, kind: Kind) -> None:
    @group.command("list")
    def list_models(project: SomeProject = None, home: Home = None) -> None:
        """Show the base and every run, the newest first."""
        from tator_ml.runs import BASE

        registry = kind.open(read_settings(home=home))
        active, (main, title) = registry.where_active(), _main_figure(registry)
        names = ("id", "active in", "label", "classes", title, "before", "made", "description")
        table = Table(*names, box=None, pad_edge=False)
        table.columns[0].no_wrap = table.columns[6].no_wrap = True  # ids are there to be copied
        for entry in registry.entries(project):
            gate = part(entry.metrics, "gate")
            table.add_row(
                entry.id,
                ", ".join(map(str, sorted(active[entry.id]))) or ("all others" if entry.id == BASE else ""),
                escape(entry.label),
                escape(_classes(entry)),
                figure(part(gate, "candidate").get(main)),
                figure(part(gate, "active").get(main)),
                entry.metadata.created_at[:10] if entry.metadata else "",
                escape(entry.description),
            )
        Console(highlight=False).print(table)

    @group.command()
    def show(name: Id, as_json: AsJson = False, home: Home = None) -> None:
        """Show how a model was made, how it is asked, and how good it is."""
        registry = kind.open(read_settings(home=home))
        entry = registry.entry(name)
        active = sorted(registry.where_active()[entry.id])
        if as_json:
            whole = {"id": entry.id, "model_id": entry.model_id, "folder": str(entry.folder or "")}
            about = asdict(entry.metadata) if entry.metadata else None
            whole |= {"active_in": active, **kind.details(entry), "metadata": about, "metrics": entry.metrics}
            typer.echo(json.dumps(whole, indent=2))
            return
        console = Console(highlight=False, soft_wrap=True)
        console.print(f"[bold]{entry.id}[/] {escape(entry.label)}: {escape(entry.description)}")
        table = Table(show_header=False, box=None, pad_edge=False)
        rows = {"active in": ", ".join(map(str, active)), "model": entry.model_id, "classes": ", ".join(entry.classes)}
        for title, value in {**rows, **kind.rows(entry)}.items():
            table.add_row(title, escape(str(value)))
        console.print(table)
        if (figures := figures_table(entry, registry)) is not None:
            console.print(figures)
        if reason := part(entry.metrics, "gate").get("reason"):
            console.print(f"The gate: {escape(str(reason))}.")

    @group.command()
    def history(project: Project, home: Home = None) -> None:
        """Show how the project's model changed and why, the newest first."""
        from tator_ml.projects import project_choices
        from tator_ml.runs import BASE

        settings = read_settings(home=home)
        registry = kind.open(settings)
        main, title = _main_figure(registry)
        changes = project_choices(settings).activations(project, registry.role)
        if not changes:
            say(f"The {registry.title} of project {project} was never changed; the base answers.")
            return
        table = Table("when", "model", "before", "why", title, "before's", box=None, pad_edge=False)
        for one in reversed(changes):
            compared = [figure(part(one.figures, name).get(main)) for name in ("candidate", "active")]
            table.add_row(moment(one.at), one.version or BASE, one.before or BASE, escape(one.why), *compared)
        Console(highlight=False).print(table)


def _add_choosing(group: typer.Typer, kind: Kind) -> None:
    @group.command()
    def activate(name: Id, project: Project, home: Home = None) -> None:
        """Make a model the project's, from the next prompt on."""
        registry = kind.open(read_settings(home=home))
        found = registry.entry(name)
        if registry.chosen(project) == found.id:
            say(f"{found.id} is active in project {project} already.")
            return
        gate = part(found.metrics, "gate")
        entry = registry.activate(project, found.id, "person", gate)
        say(f"{entry.id} is active in project {project}.")
        if gate and not gate.get("activate"):
            say(f"After its training it was held back: {gate.get('reason')}.")

    @group.command()
    def rollback(project: Project, home: Home = None) -> None:
        """Go back to the model that was active before."""
        entry = kind.open(read_settings(home=home)).rollback(project)
        say(f"Project {project} is back at {entry.id}.")


def _add_keeping(group: typer.Typer, kind: Kind) -> None:
    @group.command()
    def download(
        name: Id,
        file: Annotated[Path | None, typer.Argument(metavar="[FILE.zip]", help="Default: the id, here.")] = None,
        home: Home = None,
    ) -> None:
        """Write a run as one zip: its weights, metadata and metrics; what pictures it has seen is not in it."""
        registry = kind.open(read_settings(home=home))
        entry = registry.entry(name)
        path = registry.archive(entry.id, file or Path(f"{entry.id}.zip"))
        say(f"{entry.id} is in {path}.")

    @group.command()
    def delete(name: Id, yes: Yes = False, home: Home = None) -> None:
        """Delete a run for good; never one that is active in a project."""
        registry = kind.open(read_settings(home=home))
        entry = registry.entry(name)
        if entry.folder is not None and not registry.where_active()[entry.id]:  # else it is refused in a sentence
            question = f"Delete {entry.id} ({entry.label}) for good?"
            if not yes and not typer.confirm(question):
                say("Nothing was deleted.")
                raise typer.Exit(1)
        say(f"{registry.remove(entry.id).id} is deleted.")


def _main_figure(registry: RunRegistry[Any, Any]) -> tuple[str, str]:
    """The figure that stands in lists, and what it is called."""
    return next(iter(registry.figures.items()))


def _classes(entry: Entry[Any]) -> str:
    shown = ", ".join(entry.classes[:MOST_CLASSES])
    return f"{shown}, … ({len(entry.classes)})" if len(entry.classes) > MOST_CLASSES else shown
