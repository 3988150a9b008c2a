"""The pages together, with what surrounds each: menu, headers that let nothing foreign in, errors as pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plotly
from flask import Blueprint, Response, g, redirect, render_template, request, send_file, url_for
from werkzeug.wrappers import Response as AnyResponse

from tator_ml.web.access import Visitor, on_dashboard
from tator_ml.web.dashboard import data, jobs, models, now, quality, settings, team, train, words
from tator_ml.web.dashboard.page import Dashboard

PAGES = (now, models, train, jobs, data, quality, team, settings)
PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
# Nothing of another host, no script in the page itself; plots write styles.
POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


def blueprint(dashboard: Dashboard) -> Blueprint:
    """Routes of the dashboard."""
    routes = Blueprint("dashboard", __name__, url_prefix="/tator", template_folder="templates", static_folder="static")
    for module in PAGES:
        module.add(routes, dashboard)
    for name, change in words.FILTERS.items():
        routes.add_app_template_filter(change, name)
    routes.add_app_template_filter(dashboard.titles.named, "project_title")

    @routes.get("/")
    def home() -> AnyResponse:
        return redirect(url_for(f"dashboard.{PAGES[0].PAGE.name}", project=request.args.get("project")))

    @routes.get("/plotly.js")
    def plotly_script() -> Response:
        answer = send_file(PLOTLY, "text/javascript", max_age=7 * 86400, etag=True)
        answer.direct_passthrough = False
        return answer

    @routes.app_context_processor
    def _frame() -> dict[str, Any]:
        who: Visitor | None = g.get("visitor")
        menu = [one.PAGE for one in PAGES if who and (who.administrator or not one.PAGE.administrators)]
        return {"menu": menu, "here": _here(), "visitor": who, "dashboard": dashboard}

    @routes.after_app_request
    def _closed(answer: Response) -> Response:
        if not on_dashboard(request.path):
            return answer
        answer.headers["Content-Security-Policy"] = POLICY
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Referrer-Policy"] = "same-origin"
        answer.headers.setdefault("Cache-Control", "no-store")
        return answer

    return routes


def problem(said: str) -> str:
    """The page that says what went wrong."""
    return render_template("dashboard/problem.html", said=said)


def _here() -> str:
    """The menu's entry of the page at hand."""
    return (request.endpoint or "").removeprefix("dashboard.").split("_")[0]
