"""What the quality pages have in common: which projects and outcomes they show, and how they name them."""

from __future__ import annotations

from typing import Any

from flask import request
from werkzeug.exceptions import BadRequest

from tator_ml.quality.figures import Wanted
from tator_ml.web.access import visitor
from tator_ml.web.dashboard.page import Dashboard, Page, seen_by

PAGE = Page("quality", "Quality")

OUTCOMES = {
    "accepted": "as it was",
    "edited": "edited",
    "relabelled": "label changed",
    "unused": "not used",
}
"""How people call what became of a suggestion."""
ASSISTS = {
    "points": "points",
    "boxes": "drawn box",
    "strokes": "brush stroke",
    "text": "words",
    "exemplars": "examples",
    "tweak": "tweak",
    "words": "kept words",
    "prelabel": "prelabelled",
    "polygons": "built polygons",
    "relabel": "relabelled by a job",
    "check": "check of a label",
    "stored": "stored prediction",
    "": "not recorded",
}
GROUPS = {
    "label": "Class",
    "version": "Model version",
    "annotator": "Annotator",
    "assist": "Assist",
    "week": "Week",
}


def projects_seen(dashboard: Dashboard) -> list[int]:
    """Projects to choose from: those of the visitor that anything is known of."""
    who = visitor()
    known = dashboard.services.quality.store.projects() | set(dashboard.titles.all())
    return seen_by(who, known)


def shown_projects(dashboard: Dashboard) -> list[int]:
    """The project that the address asks for, else all that the visitor may see and anything is on record of."""
    chosen = dashboard.chosen_project()
    return [chosen] if chosen is not None else seen_by(visitor(), dashboard.services.quality.store.projects())


def needed_project(dashboard: Dashboard) -> int:
    """The project that a form or an address is about.

    Raises:
        BadRequest: it names none.
        Forbidden: it is not the visitor's.
    """
    given = request.form.get("project") or request.args.get("project", "")
    if not (given.isascii() and given.isdigit()):
        raise BadRequest("Choose a project first.")
    visitor().require(int(given))
    return int(given)


def wanted(dashboard: Dashboard, **more: Any) -> Wanted:
    """The outcomes that the address asks for."""
    return Wanted(
        shown_projects(dashboard),
        since=request.args.get("since", "")[:8],
        until=request.args.get("until", "")[:8],
        version=request.args.get("version", "")[:200],
        **more,
    )


def kept_arguments() -> dict[str, str]:
    """What the address asks for, to be asked for by links as well."""
    return {name: request.args[name] for name in ("project", "since", "until", "version") if request.args.get(name)}
