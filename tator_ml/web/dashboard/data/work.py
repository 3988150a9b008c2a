"""What jobs do with the data of a whole project: a form for each, a look before anything changes, then the job."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flask import Blueprint, render_template, request
from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Response as AnyResponse

from tator_ml.launch import request_of
from tator_ml.projects import Role
from tator_ml.runs import BASE
from tator_ml.web.access import visitor
from tator_ml.web.dashboard.data.parts import Data
from tator_ml.web.dashboard.data.results import job_on_data
from tator_ml.web.dashboard.forms import Refused, read_request, request_form
from tator_ml.web.dashboard.models.catalogue import Catalogue
from tator_ml.web.dashboard.models.versions import TITLES
from tator_ml.web.dashboard.starting import start
from tator_sdk.data_requests import DataExport
from tator_sdk.datasets import READABLE
from tator_sdk.requests import JobRequest, Prelabel, Relabel, SegmentationBuild, Tweak
from tator_sdk.settings import Settings

TUNED: tuple[Role, ...] = ("qwen", "sam3")
"""Roles whose models answer words."""


@dataclass(frozen=True)
class Work:
    """A kind of work.

    Attributes:
        name: of its page.
        title: for people.
        kind: of its jobs.
        model: of its requests.
        about: what it does, in a sentence or two.
        look: whether it can be looked at first: it must, it may, or there is nothing to look at.
        run: what the button says that does it.
        leave_out: fields that the page decides.
        paths: fields that an administrator alone is asked for.
    """

    name: str
    title: str
    kind: str
    model: type[JobRequest]
    about: str
    look: Literal["must", "may", "cannot"]
    run: str
    leave_out: tuple[str, ...] = ("dry_run",)
    paths: tuple[str, ...] = ()


WORKS = (
    Work(
        "export", "Export", "export", DataExport,
        "Writes a project's annotations, or one version's predictions, as a data set to download. The same picture is "
        "always on the same side of train and val.",
        "may", "Export", ("dry_run", "force", "output"),
    ),
    Work(
        "polygons", "Boxes to polygons", "polygons", SegmentationBuild,
        "Turns the boxes of a project or a data set into polygons, or oriented boxes: a new data set, and if you like "
        "predictions in the project. The source stays as it is.",
        "cannot", "Build", ("output", "path"), ("output", "path"),  # a job of no project is the administrators'
    ),
    Work(
        "tweak", "Tighten boxes", "tweak", Tweak,
        "Moves every box to the edges of its object, as the one-click tweak does, and leaves it where the segmenter is "
        "not sure. You see before and after first, and can take it back later.",
        "must", "Tighten",
    ),
    Work(
        "relabel", "Check classes", "relabel", Relabel,
        "Asks the project's class head about every box, and offers its class as a prediction where it surely "
        "disagrees. Annotations stay as they are.",
        "may", "Check and offer",
    ),
    Work(
        "prelabel", "Label with words", "prelabel", Prelabel,
        "Asks Qwen or SAM 3 about every picture that nobody has labelled, and offers what it finds as predictions.",
        "may", "Ask and offer",
    ),
)  # fmt: skip


def add(routes: Blueprint, data: Data) -> None:
    """Routes of the forms."""
    for work in WORKS:
        routes.add_url_rule(f"/data/{work.name}", f"data_{work.name}", _page(data, work))
        routes.add_url_rule(f"/data/{work.name}", f"data_{work.name}_start", _start(data, work), methods=["POST"])

    @routes.post("/data/job/<job_id>/go")
    def data_job_go(job_id: str) -> AnyResponse:
        """Do what was looked at."""
        record = job_on_data(data, job_id)
        looked = request_of(record)
        if not getattr(looked, "dry_run", False):
            raise BadRequest(f"{record.id} was no look.")
        if record.status != "done":
            raise BadRequest(f"{record.id} has not come to a result that could be done.")
        return start(data.dashboard.settings, looked.model_copy(update={"dry_run": False}), "data_job")


def _page(data: Data, work: Work) -> Callable[[], str]:
    def page() -> str:
        values: dict[str, Any] = {}
        project = data.dashboard.chosen_project()
        if project is not None:
            values["project"] = project
        elif work.model is SegmentationBuild and request.args.get("dataset"):
            seen = {one.id: one.path for one in data.sets_seen()}
            values["path"] = seen.get(request.args["dataset"], "")
        return _form(data, work, values)

    return page


def _start(data: Data, work: Work) -> Callable[[], AnyResponse | tuple[str, int]]:
    def started() -> AnyResponse | tuple[str, int]:
        settings, given = data.dashboard.settings, request.form
        looks = given.get("do", "look") == "look" and work.look != "cannot"
        fixed: dict[str, Any] = {}
        if work.look != "cannot":
            fixed["dry_run"] = looks or work.look == "must"
        if work.model is DataExport:
            fixed["output"] = settings.home / "exports" / f"project-{given.get('project', '')[:9]}-{_stamp()}"
        try:
            wanted = read_request(
                work.model,
                given,
                leave_out=_left_out(work),
                choices=_choices(data, work, given.get("project", "")),
                **fixed,
            )
        except Refused as error:
            return _form(data, work, error.values, error.errors), 400
        if (project := getattr(wanted, "project", None)) is not None:
            visitor().require(project)
        if isinstance(wanted, SegmentationBuild) and wanted.output is None:
            wanted = wanted.model_copy(update={"output": _free_output(wanted, settings)})
        return start(settings, wanted, "data_job")

    return started


def _form(data: Data, work: Work, values: dict[str, Any], errors: dict[str, str] | None = None) -> str:
    form = request_form(
        work.model, values=values, errors=errors, leave_out=_left_out(work),
        choices=_choices(data, work, values.get("project", "")),
        settings=data.dashboard.settings,
    )  # fmt: skip
    return render_template("dashboard/data/work.html", work=work, form=form, jobs=data.recent([work.kind]))


def _left_out(work: Work) -> tuple[str, ...]:
    """What the form does not ask this visitor for."""
    asked = work.paths if visitor().administrator else ()
    return tuple(one for one in work.leave_out if one not in asked)


def _choices(data: Data, work: Work, project: object) -> dict[str, list[tuple[str, str]]]:
    """Fields that are picked from what is there; a project's number is typed where Label Studio tells none."""
    choices: dict[str, list[tuple[str, str]]] = {}
    also = int(str(project)) if str(project).isdecimal() else None
    sets_too = work.model is SegmentationBuild and visitor().administrator
    projects = data.project_choices("no project: a data set" if sets_too else "choose one", also)
    if len(projects) > 1:
        choices["project"] = projects
    if sets_too:
        sets = [(one.path, f"{one.id} ({one.type})") for one in data.sets_seen() if one.type in READABLE]
        choices["path"] = [("", "no data set: a project"), *sets]
    if work.model is Prelabel and not visitor().administrator:
        choices["model"] = _models(data)
    return choices


def _models(data: Data) -> list[tuple[str, str]]:
    """Models that a member may ask, by name: any other id is loaded from the hub, or from this machine's disk."""
    catalogue = Catalogue(data.dashboard.settings, data.dashboard.services.projects)
    who, used = visitor(), catalogue.where_active()
    tuned = [
        (one.id, f"{one.id} ({TITLES[role]})")
        for role in TUNED
        for one in catalogue.versions(role)
        if catalogue.seen_by(who, one, used)
    ]
    return [("", "the project's active one"), (BASE, BASE), *tuned]


def _free_output(wanted: SegmentationBuild, settings: Settings) -> Path:
    """A new folder under home; the same request comes to the same one until it is written, and goes on there."""
    ending = "_obb" if wanted.oriented else "_seg"
    stem = f"project-{wanted.project}" if wanted.path is None else wanted.path.stem
    folder, number = settings.home / "polygons", 1
    tried = folder / f"{stem}{ending}"
    while tried.exists():
        number += 1
        tried = folder / f"{stem}{ending}-{number}"
    return tried


def _stamp() -> str:
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime())
