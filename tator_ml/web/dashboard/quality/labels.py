"""Labels that the head finds improbable, the most doubtful first; nothing here changes an annotation."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as AnyResponse

from tator_ml.launch import launch
from tator_ml.quality.doubts import Doubt
from tator_ml.web.access import visitor
from tator_ml.web.dashboard.page import Dashboard
from tator_ml.web.dashboard.quality.shown import kept_arguments, needed_project, projects_seen, shown_projects
from tator_sdk.requests import Relabel

A_PAGE = 24
MOST_DISMISSED = 100


def add(routes: Blueprint, dashboard: Dashboard) -> None:
    """Routes of the page."""
    doubts = dashboard.services.quality.doubts

    def of_visitor(number: int) -> Doubt:
        found = doubts.get(number)
        if found is None:
            raise NotFound("This doubt is gone: the label was changed, or checked again.")
        visitor().require(found.project)
        return found

    @routes.get("/quality/labels")
    def quality_labels() -> str:
        projects = shown_projects(dashboard)
        page = max(1, request.args.get("page", 1, int))
        found = doubts.open(projects, A_PAGE + 1, (page - 1) * A_PAGE)
        count, dismissed = doubts.count(projects)
        last = doubts.get(request.args.get("dismissed", 0, int))
        return render_template(
            "dashboard/quality/labels.html",
            projects=projects_seen(dashboard),
            chosen=dashboard.chosen_project(),
            kept=kept_arguments(),
            doubts=found[:A_PAGE],
            more=len(found) > A_PAGE,
            page=page,
            count=count,
            dismissed_count=dismissed,
            dismissed=doubts.dismissed(projects, MOST_DISMISSED),
            last=last if last is not None and visitor().may_see(last.project) else None,
            studio=dashboard.settings.label_studio_url,
        )

    @routes.post("/quality/labels/<int:number>/dismiss")
    def quality_labels_dismiss(number: int) -> AnyResponse:
        found = of_visitor(number)
        doubts.dismiss(found, visitor().name)
        return redirect(_queue(dismissed=str(number)))

    @routes.post("/quality/labels/<int:number>/bring-back")
    def quality_labels_bring_back(number: int) -> AnyResponse:
        found = of_visitor(number)
        doubts.bring_back(found)
        flash(f"The {found.label} of task {found.task} is in the queue again.", "good")
        return redirect(_queue())

    @routes.post("/quality/labels/check")
    def quality_labels_check() -> AnyResponse:
        project = needed_project(dashboard)
        (job,) = launch(dashboard.settings, Relabel(project=project, dry_run=True))
        flash(f"{job.id} checks all labels of the project; the page of jobs shows how far it is.", "good")
        return redirect(url_for("dashboard.quality_labels", project=project))


def _queue(**more: str) -> str:
    """Address of the queue as it is chosen now."""
    arguments: dict[str, Any] = {**kept_arguments(), **more}
    return url_for("dashboard.quality_labels", **arguments)
