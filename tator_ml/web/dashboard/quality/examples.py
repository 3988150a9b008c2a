"""From a figure to the objects behind it: each suggestion with what was submitted, in the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, render_template, request

from tator_ml.quality.figures import Wanted
from tator_ml.quality.store import QualityStore
from tator_ml.web.dashboard.page import Dashboard
from tator_ml.web.dashboard.quality.shown import ASSISTS, OUTCOMES, kept_arguments, projects_seen, wanted

A_PAGE = 24


@dataclass(frozen=True)
class Example:
    """A suggestion and what became of it.

    Attributes:
        number: on record.
        project, task: where it is in Label Studio.
        annotator: who decided, as Label Studio's number.
        label, final_label: suggested, and submitted.
        assist: that asked for it.
        version: of the model.
        outcome: what became of it.
        iou: between suggested and submitted.
    """

    number: int
    project: int
    task: int
    annotator: int | None
    label: str
    final_label: str | None
    assist: str
    version: str
    outcome: str
    iou: float | None


def add(routes: Blueprint, dashboard: Dashboard) -> None:
    """Routes of the page."""
    store = dashboard.services.quality.store

    @routes.get("/quality/examples")
    def quality_examples() -> str:
        outcome = request.args.get("outcome", "")
        asked = wanted(dashboard, label=request.args.get("label"))
        page = max(1, request.args.get("page", 1, int))
        found = _examples(store, asked, outcome if outcome in OUTCOMES else "", page)
        return render_template(
            "dashboard/quality/examples.html",
            projects=projects_seen(dashboard),
            chosen=dashboard.chosen_project(),
            kept=kept_arguments(),
            label=asked.label,
            outcome=outcome,
            outcomes=OUTCOMES,
            assists=ASSISTS,
            examples=found[:A_PAGE],
            more=len(found) > A_PAGE,
            page=page,
            people=store.people(),
            studio=dashboard.settings.label_studio_url,
        )


def _examples(store: QualityStore, asked: Wanted, outcome: str, page: int) -> list[Example]:
    """A page of examples and one more, where there is one; the least alike first."""
    where, values = asked.where()
    which = "outcome = ?" if outcome else "outcome <> 'replaced'"
    rows: list[tuple[Any, ...]] = store.rows(
        "SELECT id, project, task, annotator, label, final_label, assist, version, outcome, iou FROM outcomes "  # noqa: S608
        f"WHERE {where} AND {which} ORDER BY iou IS NULL, iou, id DESC LIMIT ? OFFSET ?",
        [*values, *([outcome] if outcome else []), A_PAGE + 1, (page - 1) * A_PAGE],
    )
    return [Example(*row) for row in rows]
