"""The figures: how many suggestions were used as they were, edited, changed in their label, or not used."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from flask import Blueprint, Response, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from tator_ml.launch import launch
from tator_ml.quality.figures import Figures, Tally, changed_labels, choices, figures
from tator_ml.quality.speed import as_it_happened
from tator_ml.web.dashboard.page import Dashboard
from tator_ml.web.dashboard.plots import Plot, Series, bar_plot
from tator_ml.web.dashboard.quality.shown import (
    ASSISTS,
    GROUPS,
    OUTCOMES,
    kept_arguments,
    needed_project,
    projects_seen,
    wanted,
)
from tator_sdk.requests import QualityReading

MOST_ROWS = 40
COLOURS = ("#2e8b57", "#7aa7cf", "#d9a038", "#b9c0c8")
"""Of the outcomes, in their order; the sheet has the same for the bars of the tables."""
COLUMNS = (
    "group", "name", "suggestions", "as_it_was", "edited", "label_changed", "not_used", "replaced", "share_as_it_was",
    "share_low", "share_high", "share_used", "used_low", "used_high", "mean_iou_edited", "mean_iou_used",
)  # fmt: skip


def add(routes: Blueprint, dashboard: Dashboard) -> None:
    """Routes of the page."""
    store = dashboard.services.quality.store

    @routes.get("/quality")
    def quality() -> str:
        asked = wanted(dashboard)
        found = figures(store, asked)
        chosen = dashboard.chosen_project()
        return render_template(
            "dashboard/quality/page.html",
            projects=projects_seen(dashboard),
            chosen=chosen,
            kept=kept_arguments(),
            choices=choices(store, asked.projects),
            found=found,
            plot=_weeks(found) if len(found.groups["week"]) > 1 else None,
            groups=GROUPS,
            assists=ASSISTS,
            outcomes=OUTCOMES,
            most_rows=MOST_ROWS,
            changed=changed_labels(store, asked),
            pace=as_it_happened(store, asked),
            read_at=store.read_at(chosen) if chosen is not None else None,
            doubts=dashboard.services.quality.doubts.count(asked.projects)[0],
        )

    @routes.get("/quality/figures.csv")
    def quality_csv() -> Response:
        answer = Response(_csv(figures(store, wanted(dashboard))), mimetype="text/csv")
        answer.headers["Content-Disposition"] = "attachment; filename=quality.csv"
        return answer

    @routes.post("/quality/read")
    def quality_read() -> AnyResponse:
        project = needed_project(dashboard)
        (job,) = launch(dashboard.settings, QualityReading(project=project))
        flash(f"{job.id} reads all annotations of the project; the page of jobs shows how far it is.", "good")
        return redirect(url_for("dashboard.quality", project=project))

    @routes.app_template_filter("interval")
    def _interval(tally: Tally, what: str) -> str:
        interval = tally.interval(what)
        return f"{100 * interval.low:.0f} to {100 * interval.high:.0f} %" if interval else ""

    @routes.app_template_filter("tally_share")
    def _share(tally: Tally, what: str) -> float | None:
        return tally.share(what)

    @routes.app_template_global("same_but")
    def _same_but(**more: str) -> Mapping[str, str]:
        return {**{name: value for name, value in request.args.items() if value}, **more}


def _weeks(found: Figures) -> Plot:
    weeks = list(found.groups["week"].items())
    series = [
        Series(said, [week for week, _ in weeks], [getattr(tally, name) for _, tally in weeks])
        for name, said in OUTCOMES.items()
    ]
    plot = bar_plot("weeks", "What became of the suggestions, by week", series, x="week", y="suggestions", stacked=True)
    for trace, colour in zip(plot.data, COLOURS, strict=True):
        trace["marker"] = {"color": colour}
    return plot


def _csv(found: Figures) -> str:
    """The figures as comma-separated values, one line for each group."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    writer.writerow(_line("all", "", found.total))
    for by, tallies in found.groups.items():
        for name, tally in tallies.items():
            writer.writerow(_line(by, name, tally))
    return stream.getvalue()


def _line(group: str, name: str, tally: Tally) -> list[object]:
    accepted, used = tally.interval("accepted"), tally.interval("used")
    if name[:1] in "=+-@\t\r" and name:  # a spreadsheet would take it for a formula
        name = f"'{name}"
    figures_of: tuple[float | None, ...] = (
        tally.share("accepted"), accepted.low if accepted else None, accepted.high if accepted else None,
        tally.share("used"), used.low if used else None, used.high if used else None,
        tally.edited_iou, tally.used_iou,
    )  # fmt: skip
    return [
        group, name, tally.decided, tally.accepted, tally.edited, tally.relabelled, tally.unused, tally.replaced,
        *("" if one is None else round(one, 4) for one in figures_of),
    ]  # fmt: skip
