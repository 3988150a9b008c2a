"""Verbs about class heads: ``models list``, ``show``, ``activate``, ``rollback``, ``export``, ``add`` and others."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tator_ml.cli.heads import (
    confusion,
    decision_in_short,
    figure,
    held_out_macro_f1,
    moment,
    per_class_table,
    quality,
    silence,
)
from tator_ml.cli.options import Project, SomeProject, say
from tator_ml.cli.qwen import qwen
from tator_ml.cli.sam3 import sam3
from tator_ml.cli.serving import Home, read_settings
from tator_ml.reports import part, rows
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

if TYPE_CHECKING:
    from tator_ml.learning.registry import HeadEntry, HeadRegistry

OWN = "the backend's own head"

Version = Annotated[str, typer.Argument(metavar="VERSION", help="The head's version, or its beginning.")]

models = typer.Typer(name="models", no_args_is_help=True)


class ModelsError(TatorError):
    """What was asked for does not go together; the message says what to do."""


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    models.add_typer(qwen)
    models.add_typer(sam3)
    app.add_typer(models)


@models.callback()
def _about() -> None:
    """Class heads: what was trained, how good it is, which one is active.

    A version can be shortened to a beginning that fits only one.

    Example: tator models list --project 3

    Example: tator models activate head-p3-2 --project 3

    Example: tator models rollback --project 3
    """


@models.command("list")
def list_heads(project: SomeProject = None, home: Home = None) -> None:
    """Show heads, the newest first."""
    settings = read_settings(home=home)
    active = _active_in(settings)
    entries = [
        entry for entry in _registry(settings).list()
        if project is None or entry.project == project or project in active[entry.version]
    ]  # fmt: skip
    console = Console(highlight=False)
    if not entries:
        where = f" of project {project}" if project else ""
        console.print(
            f"There are no heads{where} yet: `tator train clip --project {project or 'N'}` learns one from "
            "annotations, `tator train clip --images-path FOLDER` from a YOLO folder."
        )
        return
    names = ("version", "active in", "classes", "macro-F1", "boxes", "encoder", "made", "decision")
    table = Table(*names, box=None, pad_edge=False)
    table.columns[0].no_wrap = table.columns[6].no_wrap = True  # versions are there to be copied
    for entry in entries:
        about = entry.about()
        table.add_row(
            entry.version,
            _where_active(active[entry.version]),
            str(len(rows(about, "label_map"))),
            held_out_macro_f1(entry.report),
            str(part(entry.report, "metrics", "training").get("boxes", "")),
            escape(str(about.get("encoder_name", "cannot be read"))),
            moment(entry.created).split()[0],
            _in_short(entry),
        )
    console.print(table)


@models.command()
def show(
    version: Version,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, for programs.")] = False,
    home: Home = None,
) -> None:
    """Show how a head was made and how good it is.

    Example: tator models show head-p3-2
    """
    settings = read_settings(home=home)
    entry = _registry(settings).get(version)
    active = sorted(_active_in(settings)[entry.version])
    counts = _learned_from(entry)
    if as_json:
        about = {name: value for name, value in entry.about().items() if name != "metrics"}
        whole: dict[str, Any] = {"version": entry.version, "folder": str(entry.folder), "project": entry.project}
        whole |= {"created": entry.created, "active_in": active, "learned_from": counts}
        typer.echo(json.dumps({**whole, "head": about, "report": dict(entry.report)}, indent=2))
        return
    _show(entry, active, counts, Console(highlight=False))


@models.command()
def activate(version: Version, project: Project, home: Home = None) -> None:
    """Make a head the project's, from the next request on.

    Example: tator models activate head-p3-2 --project 3
    """
    from tator_ml.learning.stores import project_choices

    settings = read_settings(home=home)
    registry, console = _registry(settings), Console(highlight=False, soft_wrap=True)
    found = registry.get(version)
    if project_choices(settings).get(project).head == found.version:
        console.print(f"{found.version} is active in project {project} already.")
        return
    entry = registry.activate(project, found.version, "person", part(found.report, "gate"))
    console.print(f"{entry.version} is active in project {project}.")
    gate = part(entry.report, "gate")
    if gate and not gate.get("activate"):
        console.print(f"After its training it was held back: {escape(str(gate.get('reason')))}.")


@models.command()
def rollback(project: Project, home: Home = None) -> None:
    """Go back to the head that was active before.

    Example: tator models rollback --project 3
    """
    entry = _registry(read_settings(home=home)).rollback(project)
    say(f"Project {project} is back at {entry.version if entry else OWN}.")


@models.command()
def default(project: Project, home: Home = None) -> None:
    """Let the backend's own head answer again: TATOR_HEAD, or the starter's."""
    from tator_ml.learning.stores import project_choices

    projects = project_choices(read_settings(home=home))
    if projects.get(project).head is None:
        say(f"Project {project} uses {OWN} already.")
        return
    change = projects.activate(project, None, "person")
    say(f"Project {project} uses {OWN}; `tator models activate {change.before} --project {project}` undoes it.")


@models.command()
def history(project: Project, home: Home = None) -> None:
    """Show how the project's head changed and why, the newest first."""
    from tator_ml.learning.stores import project_choices

    changes = project_choices(read_settings(home=home)).activations(project)
    if not changes:
        say(f"The head of project {project} was never changed; {OWN} answers.")
        return
    table = Table("when", "head", "before", "why", "macro-F1", "head before", box=None, pad_edge=False)
    for one in reversed(changes):
        figures = part(one.figures)
        compared = (figure(figures.get("candidate")), figure(figures.get("active")))
        table.add_row(moment(one.at), one.version or OWN, one.before or OWN, escape(one.why), *compared)
    Console(highlight=False).print(table)


@models.command()
def export(
    version: Version,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE.zip]", help="Default: the version, here.")] = None,
    home: Home = None,
) -> None:
    """Write a head as one zip archive; what it learned from is not in it.

    Example: tator models export head-p3-2 cars.zip
    """
    registry = _registry(read_settings(home=home))
    entry = registry.get(version)
    written = registry.export(entry.version, file or Path(f"{entry.version}.zip"))
    say(f"{entry.version} is in {written}; `tator models add {written}` takes it in elsewhere.")


@models.command()
def add(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="An archive of `tator models export`, or a folder.")],
    project: SomeProject = None,
    activate: Annotated[bool, typer.Option("--activate", help="Make it the project's head at once.")] = False,
    home: Home = None,
) -> None:
    """Take in a head from an archive or a folder.

    Example: tator models add cars.zip --project 3 --activate
    """
    if activate and project is None:
        raise ModelsError("--activate needs --project N: a head is active in a project.")
    registry = _registry(read_settings(home=home))
    entry = registry.add_archive(path, project)
    say(f"{entry.version} is in the registry.")
    if activate and project is not None:
        registry.activate(project, entry.version, "person")
        say(f"{entry.version} is active in project {project}.")
    else:
        say(f"`tator models activate {entry.version} --project {project or 'N'}` makes it active.")


@models.command()
def delete(
    version: Version,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    home: Home = None,
) -> None:
    """Delete a head for good; never one that is active in a project.

    Example: tator models delete head-p3-2
    """
    registry = _registry(read_settings(home=home))
    entry = registry.get(version)
    if not yes and not typer.confirm(f"Delete {entry.version} for good?"):
        say("Nothing was deleted.")
        raise typer.Exit(1)
    say(f"{registry.remove(entry.version).version} is deleted.")


@models.command()
def auto(
    project: Project,
    count: Annotated[str | None, typer.Argument(metavar="[COUNT|off|default]", help="Without it: show.")] = None,
    home: Home = None,
) -> None:
    """Show or choose after how many annotations a project's head is trained by itself.

    Example: tator models auto --project 3 50

    Example: tator models auto --project 3 off
    """
    from tator_ml.learning.stores import project_choices

    settings = read_settings(home=home)
    projects = project_choices(settings)
    if count is not None:
        words = {"off": 0, "default": None}
        if count not in words and not (count.isascii() and count.isdigit() and int(count)):
            raise ModelsError(f"'{count}' is no number of annotations; give one above 0, off or default.")
        projects.choose(project, train_after=words[count] if count in words else int(count))
    chosen = projects.get(project).train_after
    after = settings.train_after if chosen is None else chosen
    said = f"a head is trained after every {after} annotations" if after else "no head is trained by itself"
    say(f"project {project}: {said}{' (the default)' if chosen is None else ''}")


def _show(entry: HeadEntry, active: list[int], counts: dict[str, Any], console: Console) -> None:
    report, about = entry.report, entry.about()
    metrics, request = part(report, "metrics"), part(report, "request")
    held_out, training, recipe = part(metrics, "held_out"), part(metrics, "training"), part(about, "recipe")
    crop = f"{'square' if recipe.get('square') else 'as drawn'}, margin {figure(recipe.get('margin'), 2)}"
    lines = {
        "version": f"[bold]{entry.version}[/]",
        "active in": _where_active(set(active)) or "no project",
        "trained for": f"project {entry.project}" if entry.project else "",
        "imported": _imported(report),
        "made": moment(entry.created),
        "files": escape(str(entry.folder)),
        "encoder": escape(f"{about.get('encoder_name')} ({about.get('encoder')})"),
        "crop": crop,
        "classes": str(len(rows(about, "label_map"))),
        "learned from": ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count),
        "settings": escape(", ".join(f"{name} {value}" for name, value in request.items() if value is not None)),
        "temperature": figure(about.get("temperature")),
        "threshold": f"{figure(about.get('threshold'), 2)}, lead {figure(about.get('margin'), 2)}, "
        f"familiarity {figure(about.get('familiarity'), 2)}",
        "held out": _measured(held_out),
        "training": f"macro-F1 {figure(training.get('macro_f1'))}, {training.get('iterations')} iterations"
        if training
        else "",
    }
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, said in lines.items():
        if said:
            table.add_row(f"[bold]{name}[/]", said)
    console.print(table)
    if (classes := per_class_table(report)) is not None:
        console.print("\n[bold]On held-out boxes[/]")
        console.print(classes)
    for number, one in enumerate(confusion(report)):
        console.print("\n[bold]Confusion[/]" if not number else "", end="\n" if not number else "")
        console.print(one)
    console.print("\n[bold]Decision[/]")
    if gate := part(report, "gate"):
        console.print(f"{'good enough' if gate.get('activate') else 'held back'}: {escape(str(gate.get('reason')))}")
        console.print(quality(entry))
    console.print(silence(entry))
    for note in rows(dict(report), "notes"):
        console.print(f"note: {escape(str(note))}", soft_wrap=True)


def _measured(held_out: dict[str, Any]) -> str:
    if not held_out.get("boxes"):
        return ""
    said = f"{held_out['boxes']} boxes: macro-F1 {figure(held_out.get('macro_f1'))}"
    said += f", accuracy {figure(held_out.get('accuracy'))}, answered {figure(held_out.get('answered'))}"
    said += f", right of those {figure(held_out.get('precision_of_answers'))}"
    return f"{said}, calibration error {figure(held_out.get('calibration_error'))}"


def _imported(report: Any) -> str:
    if not report.get("imported_from"):
        return ""
    return escape(f"from {report['imported_from']}, where it was {report.get('imported_version')}")


def _in_short(entry: HeadEntry) -> str:
    return "imported" if entry.report.get("imported_from") else decision_in_short(entry.report)


def _learned_from(entry: HeadEntry) -> dict[str, Any]:
    """Counts of what is written down of the examples; of an imported head that is not known."""
    try:
        examples = entry.examples()
    except (OSError, ValueError):
        examples = []
    kinds = Counter("held_out" if one.get("held_out") else "boxes" for one in examples)
    return {
        "boxes": kinds["boxes"],
        "held_out": kinds["held_out"],
        "pictures": len({one.get("image") for one in examples}),
        "annotations": len({one["annotation"] for one in examples if "annotation" in one}),
    }


def _registry(settings: Settings) -> HeadRegistry:
    from tator_ml.learning.stores import head_registry  # not before it is needed: every verb's help waits for it

    return head_registry(settings)


def _active_in(settings: Settings) -> defaultdict[str, set[int]]:
    """Projects in which each version is active."""
    from tator_ml.learning.stores import project_choices

    return project_choices(settings).where_active()


def _where_active(projects: set[int]) -> str:
    return f"[green]✓[/] {', '.join(str(one) for one in sorted(projects))}" if projects else ""
