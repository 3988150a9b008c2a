"""Every job there was: how it stands, its log and curves, its result; cancelled, retried, or asked for once more."""

from __future__ import annotations

from flask import Blueprint, Response, render_template, request

from tator_ml.web.access import visitor
from tator_ml.web.dashboard.jobs import again, one
from tator_ml.web.dashboard.jobs.history import History, Wanted
from tator_ml.web.dashboard.page import Dashboard, Page
from tator_sdk.errors import TatorError

PAGE = Page("jobs", "Jobs")


def add(routes: Blueprint, dashboard: Dashboard) -> None:
    """Routes of the page."""
    history = History(dashboard.settings)
    one.add(routes, dashboard)
    again.add(routes, dashboard)

    def table(wanted: Wanted) -> str:
        try:
            page, trouble = history.page(wanted, visitor()), ""
        except TatorError as error:
            page, trouble = None, str(error)
        return render_template("dashboard/jobs/table.html", page=page, trouble=trouble, wanted=wanted)

    @routes.get("/jobs")
    def jobs() -> str:
        wanted = Wanted.of(request.args, dashboard.chosen_project())
        try:
            choices = history.choices(visitor())
        except TatorError:  # the table says it
            choices = None
        return render_template("dashboard/jobs/page.html", table=table(wanted), wanted=wanted, choices=choices)

    @routes.get("/jobs/live")
    def jobs_live() -> Response:
        wanted = Wanted.of(request.args, dashboard.chosen_project())
        return dashboard.live.stream(f"jobs:{visitor().sight}:{wanted}", lambda: {"jobs": table(wanted)})
