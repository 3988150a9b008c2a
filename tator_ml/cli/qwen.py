"""Verbs about models that are asked in words: ``models qwen list``, ``show``, ``activate`` and others."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tator_ml.cli.heads import figure, moment, part
from tator_ml.cli.serving import Home, read_settings
from tator_ml.projects import Projects
from tator_ml.vlm.registry import BASE, QwenEntry, qwen_registry
from tator_sdk.settings import Settings

Project = Annotated[int, typer.Option("--project", "-p", min=1, help="The project's number in Label Studio's address.")]
SomeProject = Annotated[int | None, typer.Option("--project", "-p", min=1, help="The project's number.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The run's id, or its beginning; base for the untuned model.")]

MOST_CLASSES = 6
FIGURES = {
    "map50": "mAP@0.5",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "mean_iou": "mean IoU",
    "label_f1": "label F1",
}
"""Of an evaluation, and what they are called."""

qwen = typer.Typer(name="qwen", no_args_is_help=True)


@qwen.callback()
def _about() -> None:
    """Models that are asked in words: the base, and what was tuned from it.

    The active one of a project answers its prompts, with the system prompt and the context it was trained with.

    Example: tator models qwen list

    Example: tator models qwen activate qwen-p3-2 --project 3

    Example: tator models qwen rollback --project 3
    """


@qwen.command("list")
def list_models(project: SomeProject = None, home: Home = None) -> None:
    """Show the base and every run, the newest first."""
    settings = read_settings(home=home)
    active = _active_in(settings)
    console = Console(highlight=False)
    names = ("id", "active in", "label", "classes", "mAP@0.5", "before", "made", "description")
    table = Table(*names, box=None, pad_edge=False)
    table.columns[0].no_wrap = table.columns[6].no_wrap = True  # ids are there to be copied
    for entry in qwen_registry(settings).entries(project):
        gate = part(entry.metrics, "gate")
        table.add_row(
            entry.id,
            ", ".join(map(str, sorted(active[entry.id]))) or ("all others" if entry.id == BASE else ""),
            escape(entry.label),
            escape(_classes(entry)),
            figure(part(gate, "candidate").get("map50")),
            figure(part(gate, "active").get("map50")),
            entry.metadata.created_at[:10] if entry.metadata else "",
            escape(entry.description),
        )
    console.print(table)


@qwen.command()
def show(
    name: Id,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, for programs.")] = False,
    home: Home = None,
) -> None:
    """Show how a model is asked, how it was made, and how good it is."""
    settings = read_settings(home=home)
    entry = qwen_registry(settings).entry(name)
    active = sorted(_active_in(settings)[entry.id])
    about = asdict(entry.metadata) if entry.metadata else None
    if as_json:
        whole: dict[str, Any] = {
            "id": entry.id,
            "model_id": entry.model_id,
            "folder": str(entry.folder or ""),
            "active_in": active,
        }
        whole |= {"style": asdict(entry.style), "metadata": about, "metrics": entry.metrics}
        typer.echo(json.dumps(whole, indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{entry.id}[/] {escape(entry.label)}: {escape(entry.description)}")
    rows: dict[str, Any] = {"active in": ", ".join(map(str, active)), "model": entry.model_id}
    style = {"system prompt": entry.style.system_prompt, "template": entry.style.template}
    style |= {"image type": entry.style.image_type, "context": entry.style.extra_context}
    rows |= {"classes": ", ".join(entry.classes), **style}
    if about is not None:
        kept = ("method", "source_dataset", "created_at", "max_image_dim", "max_detections_per_sample")
        rows |= {name.replace("_", " "): about[name] for name in (*kept, "system_prompt_noise")}
    table = Table(show_header=False, box=None, pad_edge=False)
    for title, value in rows.items():
        table.add_row(title, escape(str(value)))
    console.print(table)
    if (figures := figures_table(entry)) is not None:
        console.print(figures)
    if reason := part(entry.metrics, "gate").get("reason"):
        console.print(f"The gate: {escape(str(reason))}.")


@qwen.command()
def activate(name: Id, project: Project, home: Home = None) -> None:
    """Make a model the project's, from the next prompt on."""
    settings = read_settings(home=home)
    registry = qwen_registry(settings)
    found = registry.entry(name)
    if registry.active(project).id == found.id:
        _say(f"{found.id} is active in project {project} already.")
        return
    gate = part(found.metrics, "gate")
    entry = registry.activate(project, found.id, "person", gate)
    _say(f"{entry.id} is active in project {project}.")
    if gate and not gate.get("activate"):
        _say(f"After its training it was held back: {escape(str(gate.get('reason')))}.")


@qwen.command()
def rollback(project: Project, home: Home = None) -> None:
    """Go back to the model that was active before."""
    entry = qwen_registry(read_settings(home=home)).rollback(project)
    _say(f"Project {project} is back at {entry.id}.")


@qwen.command()
def history(project: Project, home: Home = None) -> None:
    """Show how the project's model changed and why, the newest first."""
    changes = Projects(read_settings(home=home).home / "projects").activations(project, "qwen")
    if not changes:
        _say(f"The Qwen of project {project} was never changed; the base answers.")
        return
    table = Table("when", "model", "before", "why", "mAP@0.5", "before's", box=None, pad_edge=False)
    for one in reversed(changes):
        compared = (part(one.figures, name).get("map50") for name in ("candidate", "active"))
        table.add_row(
            moment(one.at), one.version or BASE, one.before or BASE, escape(one.why), *(figure(it) for it in compared)
        )
    Console(highlight=False).print(table)


@qwen.command()
def download(
    name: Id,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE.zip]", help="Default: the id, here.")] = None,
    home: Home = None,
) -> None:
    """Write a run as one zip: its weights, metadata and metrics; what pictures it has seen is not in it."""
    registry = qwen_registry(read_settings(home=home))
    entry = registry.entry(name)
    _say(f"{entry.id} is in {registry.archive(entry.id, file or Path(f'{entry.id}.zip'))}.")


@qwen.command()
def export(
    name: Id,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    home: Home = None,
) -> None:
    """Write a run as a whole model in the published layout (safetensors), its adapter merged into the base.

    Example: tator models qwen export qwen-p3-2 cars-merged
    """
    from tator_ml.vlm.merge import merge

    settings = read_settings(home=home)
    entry = qwen_registry(settings).entry(name)
    written = merge(entry, settings, folder)
    _say(f"{entry.id} is in {written}; QWEN_MODEL_NAME={written} makes it an installation's base.")


def figures_table(entry: QwenEntry) -> Table | None:
    """What the model and the active one reached on the same held-out pictures; None without figures."""
    gate = part(entry.metrics, "gate")
    mine, theirs = part(gate, "candidate"), part(gate, "active")
    if not mine:
        return None
    table = Table("", "this model", str(gate.get("active_id", "active")), box=None, pad_edge=False)
    for name, title in FIGURES.items():
        table.add_row(title, figure(mine.get(name)), figure(theirs.get(name)))
    for name, value in part(mine, "per_class").items():
        table.add_row(f"AP of {escape(name)}", figure(value), figure(part(theirs, "per_class").get(name)))
    table.caption = f"on {gate.get('pictures')} held-out pictures"
    return table


def _active_in(settings: Settings) -> Mapping[str, set[int]]:
    """Projects in which each run is active."""
    folder = settings.home / "projects"
    found: defaultdict[str, set[int]] = defaultdict(set)
    projects = Projects(folder)
    for path in folder.glob("*.json"):
        if path.stem.isdigit() and (run := projects.get(int(path.stem)).qwen):
            found[run].add(int(path.stem))
    return found


def _classes(entry: QwenEntry) -> str:
    shown = ", ".join(entry.classes[:MOST_CLASSES])
    return f"{shown}, … ({len(entry.classes)})" if len(entry.classes) > MOST_CLASSES else shown


def _say(text: str) -> None:
    Console(highlight=False, soft_wrap=True).print(text)
