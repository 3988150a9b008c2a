"""A job on data, while it runs and when it has ended: what came of it, before and after, and its undo."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from flask import Blueprint, Response, flash, redirect, render_template, send_file, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as AnyResponse

from tator_ml.jobs import cancel
from tator_ml.jobs.connection import reached
from tator_ml.jobs.records import JobRecord, JobRecords
from tator_ml.learning.stores import image_store
from tator_ml.web.access import visitor
from tator_ml.web.dashboard.data.crops import Crop, crop_around, cut
from tator_ml.web.dashboard.data.parts import Data, may_see_set
from tator_ml.web.dashboard.jobs.one import seen_job
from tator_sdk.datasets import DatasetRecord
from tator_sdk.import_record import ImportRecords
from tator_sdk.looking import Look

SHOWN = ("export", "import", "polygons", "prelabel", "register", "relabel", "tweak", "undo")
"""Kinds with a page of their own here."""
LINES = 200


@dataclass(frozen=True)
class BoxShown:
    """A box of a report, on a cutting of its picture.

    Attributes:
        index: in the report's list.
        row: as the report has it.
        crop: what is cut out; None where the report does not say where the box stands.
        before, after: corners in the crop's pixels; ``after`` is None for a box whose class alone is doubtful.
    """

    index: int
    row: dict[str, Any]
    crop: Crop | None
    before: tuple[float, ...] | None
    after: tuple[float, ...] | None


def job_on_data(data: Data, job_id: str) -> JobRecord:
    """A job that does something with data and that the visitor may see.

    Raises:
        NotFound: there is none that is shown here.
        Forbidden: it is not theirs.
    """
    record = seen_job(data.dashboard.settings, job_id)
    if record.kind not in SHOWN:
        raise NotFound(f"{record.id} does nothing with data; the jobs page shows it.")
    return record


def boxes_of(record: JobRecord) -> list[BoxShown]:
    """The boxes that a job's report lists, each with what is cut out around it."""
    result = record.result or {}
    if record.kind == "tweak":
        rows = [(row, row.get("before"), row.get("after")) for row in result.get("moved_most", [])]
    else:
        rows = [(row, row.get("xyxy"), None) for row in result.get("doubtful", [])]
    shown = []
    for index, (row, before, after) in enumerate(rows):
        if not (row.get("image") and before):
            shown.append(BoxShown(index, row, None, None, None))
            continue
        crop = crop_around([before, *([after] if after else [])])
        shown.append(BoxShown(index, row, crop, crop.placed(before), crop.placed(after) if after else None))
    return shown


def undo_of(data: Data, record: JobRecord) -> str | None:
    """What takes back what an ended job did; None where there is nothing to be taken back."""
    result, request = record.result or {}, record.request
    if not record.over or record.project is None or request.get("dry_run"):
        return None
    if record.kind in ("tweak", "relabel", "prelabel"):
        return record.id if record.started else None
    if record.kind == "polygons":
        pushed = result.get("pushed", 0) + result.get("already_there", 0)
        return str(result["build"]) if pushed else None
    if record.kind == "import":
        records = ImportRecords(data.dashboard.settings).list()
        made = (one for one in records if one.request == request and one.project == record.project)
        return next((one.id for one in made if one.state != "undone"), None)
    return None


def add(routes: Blueprint, data: Data) -> None:
    """Routes of the results."""
    settings = data.dashboard.settings
    store = cache(lambda: image_store(settings))  # counts its files when it is made

    def standing(record: JobRecord) -> str:
        with reached(settings) as connection:
            records = JobRecords(connection)
            lines, _ = records.log_page(record.id, max(0, records.log_end(record.id) - LINES))
        boxes = boxes_of(record) if record.kind in ("tweak", "relabel") else []
        return render_template(
            "dashboard/data/standing.html", job=record, result=record.result or {}, lines=lines, boxes=boxes,
            undo=undo_of(data, record), dataset=_set_of(data, record), look=_samples(data, record),
            studio=settings.label_studio_url,
        )  # fmt: skip

    @routes.get("/data/job/<job_id>")
    def data_job(job_id: str) -> str:
        record = job_on_data(data, job_id)
        settled = record.over and not _is_drawn(data, record)
        return render_template(
            "dashboard/data/job.html", settled=settled, job=record, standing=standing(record),
            project=data.name_of(record.project),
        )  # fmt: skip

    @routes.get("/data/job/<job_id>/live")
    def data_job_live(job_id: str) -> Response:
        job_on_data(data, job_id)
        who = "all" if visitor().administrator else visitor().name
        return data.dashboard.live.stream(
            f"data-job:{job_id}:{who}", lambda: {"standing": standing(job_on_data(data, job_id))}
        )

    @routes.post("/data/job/<job_id>/cancel")
    def data_job_cancel(job_id: str) -> AnyResponse:
        record = cancel(settings, job_on_data(data, job_id).id)
        ended = "is cancelled" if record.over else "ends at its next step"
        flash(f"{record.id} {ended}.", "good")
        return redirect(url_for("dashboard.data_job", job_id=record.id))

    @routes.get("/data/job/<job_id>/box/<int:index>.jpg")
    def data_job_box(job_id: str, index: int) -> Response:
        record = job_on_data(data, job_id)
        shown = boxes_of(record)
        if index >= len(shown) or (crop := shown[index].crop) is None:
            raise NotFound("There is no such box.")
        picture = store().get(str(shown[index].row["image"]))
        if picture is None:
            raise NotFound("The picture is not kept here any more.")
        answer = Response(cut(picture, crop, settings.image_max_pixels), mimetype="image/jpeg")
        answer.headers["Cache-Control"] = "private, max-age=3600"
        return answer

    @routes.get("/data/job/<job_id>/sheet.png")
    def data_job_sheet(job_id: str) -> Response:
        path = settings.home / "jobs" / job_on_data(data, job_id).id / "moved.png"
        if not path.is_file():
            raise NotFound("This job drew no sheet; ask for pictures in its form.")
        answer = send_file(path, "image/png")
        answer.direct_passthrough = False
        return answer


def _set_of(data: Data, record: JobRecord) -> DatasetRecord | None:
    """The data set that a job made, if the visitor may see it."""
    name = (record.result or {}).get("dataset")
    made = next((one for one in data.registry.list() if one.id == name), None) if name else None
    return made if made is not None and may_see_set(visitor(), made) else None


def _samples(data: Data, record: JobRecord) -> Look | None:
    """Some pictures of the polygons that a build made, once they are drawn; asks for them where they are not."""
    made = _set_of(data, record) if record.kind == "polygons" else None
    return None if made is None else data.pictures_of(made)


def _is_drawn(data: Data, record: JobRecord) -> bool:
    """Whether pictures of what a build made are still being drawn."""
    made = _set_of(data, record) if record.kind == "polygons" else None
    return made is not None and data.pictures_of(made) is None
