"""What the backend is doing at this moment."""

from __future__ import annotations

from flask import Blueprint, Response, render_template

from tator_ml.web.dashboard.page import Dashboard, Page

PAGE = Page("now", "Now")


def add(routes: Blueprint, dashboard: Dashboard) -> None:
    """Routes of the page."""

    def lanes() -> str:
        return render_template("dashboard/now/lanes.html", status=dashboard.watch.status)

    @routes.get("/now")
    def now() -> str:
        return render_template("dashboard/now/page.html", lanes=lanes())

    @routes.get("/now/live")
    def now_live() -> Response:
        return dashboard.live.stream("now", lambda: {"lanes": lanes()})
