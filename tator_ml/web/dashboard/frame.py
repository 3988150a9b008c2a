"""The pages together, with what surrounds each: menu, headers that let nothing foreign in, errors as pages."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import plotly
from flask import Blueprint, Response, redirect, render_template, request, send_file, url_for
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from tator_ml.web.access import visitor
from tator_ml.web.dashboard import now, settings, words
from tator_ml.web.dashboard.page import Dashboard
from tator_sdk.errors import TatorError

log = logging.getLogger(__name__)

PAGES = (now, settings)
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

    @routes.get("/")
    def home() -> AnyResponse:
        return redirect(url_for(f"dashboard.{PAGES[0].PAGE.name}"))

    @routes.get("/plotly.js")
    def plotly_script() -> Response:
        answer = send_file(PLOTLY, "text/javascript", max_age=7 * 86400, etag=True)
        answer.direct_passthrough = False
        return answer

    @routes.context_processor
    def _frame() -> dict[str, Any]:
        who = visitor()
        menu = [one.PAGE for one in PAGES if who.administrator or not one.PAGE.administrators]
        return {"menu": menu, "here": _here(), "visitor": who, "dashboard": dashboard}

    @routes.after_request
    def _closed(answer: Response) -> Response:
        answer.headers["Content-Security-Policy"] = POLICY
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Referrer-Policy"] = "same-origin"
        answer.headers.setdefault("Cache-Control", "no-store")
        return answer

    @routes.errorhandler(TatorError)
    def _sentence(error: TatorError) -> tuple[str, int]:
        return render_template("dashboard/problem.html", said=str(error)), 400

    @routes.errorhandler(HTTPException)
    def _refused(error: HTTPException) -> tuple[str, int]:
        return render_template("dashboard/problem.html", said=error.description or error.name), error.code or 500

    @routes.errorhandler(Exception)
    def _unexpected(error: Exception) -> tuple[str, int]:
        log.exception("page %s failed", request.path)
        return render_template("dashboard/problem.html", said="Tator had an unexpected error; its log says more."), 500

    return routes


def _here() -> str:
    """The menu's entry of the page at hand."""
    return (request.endpoint or "").removeprefix("dashboard.").split("_")[0]
