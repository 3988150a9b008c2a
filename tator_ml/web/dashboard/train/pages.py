"""The routes of training: the form, the look before, the start, and how the last ones went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, flash, redirect, render_template, request, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as AnyResponse

from tator_ml.jobs import JobError, JobRecord, JobRecords
from tator_ml.jobs.connection import living_workers, reached
from tator_ml.launch import looked_at, preview
from tator_ml.web.access import visitor
from tator_ml.web.dashboard.forms import Refused
from tator_ml.web.dashboard.jobs.one import seen_job
from tator_ml.web.dashboard.models.catalogue import Catalogue
from tator_ml.web.dashboard.models.looking import checked
from tator_ml.web.dashboard.page import Dashboard
from tator_ml.web.dashboard.starting import start
from tator_ml.web.dashboard.train.asking import ABOUT, ROLES, TITLES, Asking, choices_of
from tator_ml.web.dashboard.train.sources import sources
from tator_sdk.errors import TatorError

SHOWN_TRAININGS = 8


def add(routes: Blueprint, dashboard: Dashboard) -> None:
    """Routes of the page."""
    settings = dashboard.settings
    catalogue = Catalogue(settings, dashboard.services.projects)

    def asking(kind: str) -> Asking:
        if kind not in TITLES:
            raise NotFound(f"There is no training of a '{kind}'.")
        who = visitor()
        return Asking(kind, who, sources(dashboard, who, kind), choices_of(kind, who, catalogue, settings))

    def page(asked: Asking, values: Mapping[str, Any], source: str, errors: Mapping[str, str]) -> str:
        return render_template(
            "dashboard/train/page.html",
            kind=asked.kind,
            titles=TITLES,
            about=ABOUT,
            sources=asked.sources,
            chosen=source,
            source_path=values.get("source_path") or values.get("images_path") or values.get("dataset") or "",
            source_error=errors.get("source", ""),
            form=asked.form(settings, values, {name: said for name, said in errors.items() if name != "source"}),
            trainings=trainings(),
        )

    def trainings() -> str:
        return render_template("dashboard/train/trainings.html", jobs=_recent(dashboard), **_workers(dashboard))

    @routes.get("/train")
    def train() -> str:
        asked = asking(request.args.get("kind", "clip"))
        values, source = _begun(dashboard, catalogue, asked)
        return page(asked, values, source, {})

    @routes.post("/train/<kind>")
    def train_start(kind: str) -> AnyResponse | tuple[str, int]:
        asked = asking(kind)
        look = "look" in request.form
        try:
            wanted = asked.read(request.form)
            if not look:
                return start(settings, wanted)
            job = preview(settings, wanted)
        except Refused as refused:
            return page(asked, refused.values, request.form.get("source", ""), refused.errors), 422
        except TatorError as error:
            flash(str(error), "error")
            return page(asked, request.form.to_dict(), request.form.get("source", ""), {}), 409
        return redirect(url_for("dashboard.train_look", job_id=job.id))

    @routes.get("/train/look/<job_id>")
    def train_look(job_id: str) -> str:
        job = _previewed(dashboard, job_id)
        kind = str(job.request["kind"])
        return render_template(
            "dashboard/train/look.html",
            job=job,
            kind=kind,
            title=TITLES[kind],
            found=render_template("dashboard/train/found.html", job=job, **_workers(dashboard)),
        )

    @routes.post("/train/look/<job_id>/start")
    def train_after_look(job_id: str) -> AnyResponse:
        job = _previewed(dashboard, job_id)
        try:
            return start(settings, looked_at(job))
        except TatorError as error:
            flash(str(error), "error")
            return redirect(url_for("dashboard.train_look", job_id=job_id))

    @routes.get("/train/look/<job_id>/live")
    def train_look_live(job_id: str) -> Response:
        project = _previewed(dashboard, job_id).project

        def look() -> dict[str, str]:
            job = _previewed(dashboard, job_id)
            return {"found": render_template("dashboard/train/found.html", job=job, **_workers(dashboard))}

        return dashboard.live.stream(f"train-look:{job_id}:{project}", look)

    @routes.get("/train/live")
    def train_live() -> Response:
        return dashboard.live.stream(f"train:{visitor().sight}", lambda: {"trainings": trainings()})


def _begun(dashboard: Dashboard, catalogue: Catalogue, asked: Asking) -> tuple[dict[str, Any], str]:
    """What the form begins with: a version's or a job's settings, or the defaults; and the source."""
    values: dict[str, Any] = {}
    if like := request.args.get("like"):
        role = checked(ROLES[asked.kind])
        values = dict(catalogue.require(visitor(), catalogue.version(role, like)).request)
    elif again := request.args.get("again"):
        job = seen_job(dashboard.settings, again)
        values = dict(job.request["request"] if job.kind == "preview" else job.request)
    project = dashboard.chosen_project()
    if project is not None:
        return values, f"project:{project}"
    if values:
        return values, asked.key_of(values)
    named = request.args.get("dataset", "")
    first = asked.sources[0].key if asked.sources and asked.sources[0].classes else ""
    return values, f"set:{named}" if named else first


def _previewed(dashboard: Dashboard, job_id: str) -> JobRecord:
    """A look before a training.

    Raises:
        NotFound: it is no such job.
        Forbidden: it is not the visitor's to see.
    """
    job = seen_job(dashboard.settings, job_id)
    if job.kind != "preview" or job.request.get("kind") not in TITLES:
        raise NotFound(f"{job_id} is no look before a training.")
    return job


def _recent(dashboard: Dashboard) -> list[JobRecord]:
    """The newest trainings that the visitor may see; none where Redis is away."""
    try:
        with reached(dashboard.settings) as connection:
            found = JobRecords(connection).list(limit=100)
    except JobError:
        return []
    return [one for one in found if one.kind in TITLES and visitor().may_see(one.project)][:SHOWN_TRAININGS]


def _workers(dashboard: Dashboard) -> dict[str, int]:
    try:
        with reached(dashboard.settings) as connection:
            return {"workers": living_workers(connection)}
    except JobError:
        return {"workers": 0}
