"""The comparison on purpose: begin it with a look at what would be drawn, see its result, end it."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Response as AnyResponse

from tator_ml.quality.comparison import MOST_SHARE, NO_ASSISTANCE, Comparison
from tator_ml.quality.speed import Contrast, on_purpose
from tator_ml.quality.store import QualityStore
from tator_ml.web.dashboard.page import Dashboard
from tator_ml.web.dashboard.quality.shown import kept_arguments, needed_project, projects_seen
from tator_sdk.bulk import open_bulk
from tator_sdk.settings import Settings

MOST_SEED = 2**31
LISTED = 12


@dataclass(frozen=True)
class Preview:
    """What a comparison would draw.

    Attributes:
        comparison: that would begin.
        tasks: of the project; ``unlabelled`` those without annotation.
        unlabelled: see ``tasks``.
        drawn: of the unlabelled ones, how many.
        first: of them, the first numbers.
    """

    comparison: Comparison
    tasks: int
    unlabelled: int
    drawn: int
    first: tuple[int, ...]


@dataclass(frozen=True)
class Result:
    """A comparison with what it came to so far."""

    comparison: Comparison
    ended: float | None
    contrast: Contrast


def add(routes: Blueprint, dashboard: Dashboard) -> None:
    """Routes of the page."""
    services = dashboard.services

    @routes.get("/quality/comparison")
    def quality_comparison() -> str:
        project = dashboard.chosen_project()
        running = services.projects.get(project).comparison
        results = _results(services.quality.store, project) if project is not None else []
        share = request.args.get("share")
        preview = _preview(dashboard.settings, project, _asked(share, request.args.get("seed"))) if (
            share and project is not None and running is None
        ) else None  # fmt: skip
        return render_template(
            "dashboard/quality/comparison.html",
            projects=projects_seen(dashboard),
            chosen=project,
            kept=kept_arguments(),
            running=running,
            current=next((one for one in results if one.ended is None), None),
            past=[one for one in results if one.ended is not None],
            preview=preview,
            most=round(100 * MOST_SHARE),
            sentence=NO_ASSISTANCE,
        )

    @routes.post("/quality/comparison/begin")
    def quality_comparison_begin() -> AnyResponse:
        project = needed_project(dashboard)
        services.compare(project, _asked(request.form.get("share"), request.form.get("seed")))
        flash("The comparison has begun: drawn tasks get no assistance from now on.", "good")
        return redirect(url_for("dashboard.quality_comparison", project=project))

    @routes.post("/quality/comparison/end")
    def quality_comparison_end() -> AnyResponse:
        project = needed_project(dashboard)
        services.compare(project, None)
        flash("The comparison has ended: all tasks get assistance again. Its result stays below.", "good")
        return redirect(url_for("dashboard.quality_comparison", project=project))


def _asked(share: str | None, seed: str | None) -> Comparison:
    """A comparison that would begin now.

    Raises:
        BadRequest: the share is none.
    """
    try:
        percent = float(share or "")
        number = int(seed) if seed else secrets.randbelow(MOST_SEED)
    except ValueError:
        raise BadRequest(f"Give the share in percent, from 1 to {100 * MOST_SHARE:.0f}.") from None
    if not 1 <= percent <= 100 * MOST_SHARE or not 0 <= number < MOST_SEED:
        raise BadRequest(f"Give the share in percent, from 1 to {100 * MOST_SHARE:.0f}.")
    return Comparison(percent / 100, number, time.time())


def _preview(settings: Settings, project: int, comparison: Comparison) -> Preview:
    """Ask Label Studio for the project's tasks, their numbers alone, and draw.

    Raises:
        StudioError: it refuses, or does not answer.
    """
    tasks = unlabelled = 0
    drawn = []
    with open_bulk(settings) as api:
        for task in api.tasks(project, "id", "total_annotations"):
            tasks += 1
            if not task.get("total_annotations"):
                unlabelled += 1
                if comparison.draws(int(task["id"])):
                    drawn.append(int(task["id"]))
    return Preview(comparison, tasks, unlabelled, len(drawn), tuple(sorted(drawn)[:LISTED]))


def _results(store: QualityStore, project: int) -> list[Result]:
    return [
        Result(comparison, ended, on_purpose(store, project, comparison.since))
        for comparison, ended in store.comparisons(project)
    ]
