"""One job: how it stands, its request, log and curves, its result, and what can be done with it."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flask import (
    Blueprint,
    Response,
    flash,
    jsonify,
    redirect,
    render_template,
    request,
    send_file,
    url_for,
)
from pydantic import BaseModel
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as AnyResponse

from tator_ml import jobs as job_queue
from tator_ml.jobs.connection import living_workers, reached
from tator_ml.jobs.records import JobError, JobRecord, JobRecords
from tator_ml.launch import LaunchError, request_of
from tator_ml.web.access import visitor
from tator_ml.web.dashboard.forms import Field, request_form
from tator_ml.web.dashboard.jobs.curves import curves
from tator_ml.web.dashboard.jobs.results import files_of, result_of
from tator_ml.web.dashboard.page import Dashboard
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

FIRST_LINES = 200
"""Of a log that are shown at once; the rest is in the download."""
MOST_LINES = 1000
"""That one look for news brings; more are passed over, which is told."""
MOST_CURVES = 64


def add(routes: Blueprint, dashboard: Dashboard) -> None:
    """Routes of one job."""
    _add_page(routes, dashboard)
    _add_taking(routes, dashboard.settings)
    _add_changing(routes, dashboard.settings)


def _add_page(routes: Blueprint, dashboard: Dashboard) -> None:
    settings = dashboard.settings
    drawn = _Drawn()

    def parts(job_id: str, seen: JobRecord | None = None) -> Mapping[str, str]:
        """What changes by itself while it runs."""
        try:
            with reached(settings) as connection:
                records = JobRecords(connection)
                record = seen or records.get(job_id)
                idle = record.status == "queued" and not living_workers(connection)
                shown = drawn.curves(records, record)
                end = records.log_end(job_id)
        except TatorError as error:
            return {"trouble": render_template("dashboard/jobs/trouble.html", said=str(error))}
        return {
            "trouble": "",
            "state": render_template("dashboard/jobs/state.html", job=record, idle=idle),
            "result": render_template(
                "dashboard/jobs/result.html", job=record, result=result_of(record), files=files_of(settings, record),
            ),
            "curves": shown,
            "log-end": str(end),
        }  # fmt: skip

    @routes.get("/jobs/<job_id>")
    def jobs_one(job_id: str) -> str:
        with _job(settings, job_id) as (record, records):
            end = records.log_end(job_id)
            lines, end = records.log_page(job_id, max(0, end - FIRST_LINES))
        return render_template(
            "dashboard/jobs/one.html", job=record, parts=parts(job_id, record), lines=lines, log_end=end,
            left_out=max(0, end - len(lines)), settings_of=_asked(record),
        )  # fmt: skip

    @routes.get("/jobs/<job_id>/live")
    def jobs_one_live(job_id: str) -> Response:
        with _job(settings, job_id):
            pass
        return dashboard.live.stream(f"job:{job_id}", functools.partial(parts, job_id))

    @routes.get("/jobs/<job_id>/log")
    def jobs_log(job_id: str) -> Response:
        """The lines after a number, as JSON."""
        given = request.args.get("after", "")
        after = int(given) if given.isascii() and given.isdigit() and len(given) < 16 else 0
        with _job(settings, job_id) as (_, records):
            lines, end = records.log_page(job_id, max(after, records.log_end(job_id) - MOST_LINES))
        return jsonify(lines=lines, end=end, left_out=max(0, end - len(lines) - after))


def _add_taking(routes: Blueprint, settings: Settings) -> None:
    @routes.get("/jobs/<job_id>/log.txt")
    def jobs_log_text(job_id: str) -> Response:
        with _job(settings, job_id) as (_, records):
            lines = records.log_lines(job_id)
        answer = Response("".join(f"{line}\n" for line in lines), mimetype="text/plain")
        answer.headers["Content-Disposition"] = f'attachment; filename="{job_id}.log.txt"'
        return answer

    @routes.get("/jobs/<job_id>/files/<name>")
    def jobs_file(job_id: str, name: str) -> Response:
        with _job(settings, job_id) as (record, _):
            path = next((one.path for one in files_of(settings, record) if one.name == name), None)
        if path is None:
            raise NotFound("The job left no such file here.")
        return send_file(path, as_attachment=True, download_name=f"{job_id}-{name}")


def _add_changing(routes: Blueprint, settings: Settings) -> None:
    @routes.post("/jobs/<job_id>/cancel")
    def jobs_cancel(job_id: str) -> AnyResponse:
        with _job(settings, job_id) as (before, _):
            pass
        after = job_queue.cancel(settings, job_id)
        if before.over:
            flash(f"It had ended already: {before.status}.", "good")
        else:
            flash("It is cancelled." if after.over else "It is asked to stop at its next step.", "good")
        return redirect(url_for("dashboard.jobs_one", job_id=job_id))

    @routes.post("/jobs/<job_id>/retry")
    def jobs_retry(job_id: str) -> AnyResponse:
        with _job(settings, job_id):
            pass
        after = job_queue.retry(settings, job_id)
        flash(f"{after.id} does the same once more.", "good")
        return redirect(url_for("dashboard.jobs_one", job_id=after.id))


@contextmanager
def _job(settings: Settings, job_id: str) -> Iterator[tuple[JobRecord, JobRecords]]:
    """A job that the visitor may see.

    Raises:
        NotFound: there is none of this id.
        Forbidden: it is of a project that they may not see.
        JobError: Redis does not answer.
    """
    with reached(settings) as connection:
        records = JobRecords(connection)
        try:
            record = records.get(job_id)
        except JobError as error:
            raise NotFound(f"There is no job {job_id}. The history keeps the last 500 that have ended.") from error
        visitor().require(record.project)
        yield record, records


def seen_job(settings: Settings, job_id: str) -> JobRecord:
    """A job that the visitor may see; raises as :func:`_job`."""
    with _job(settings, job_id) as (record, _):
        return record


def _asked(record: JobRecord) -> list[tuple[str, list[Field]]]:
    """The request by heading, of what was not left at its default; the raw one where it is of another version."""
    try:
        asked: BaseModel = request_of(record)
    except LaunchError:
        return []
    form = request_form(type(asked), values=asked.model_dump())
    return [(section.title, fields) for section in form.sections if (fields := [f for f in section.fields if f.value])]


class _Drawn:
    """Curves as they were rendered last, until they have more points."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[Any, str]] = OrderedDict()

    def curves(self, records: JobRecords, record: JobRecord) -> str:
        """A job's plots as HTML."""
        state = (records.points_end(record.id), record.attempt, record.over)
        kept = self._kept.get(record.id)
        if kept is not None and kept[0] == state:
            return kept[1]
        made = render_template("dashboard/jobs/curves.html", plots=curves(records.points(record.id)), job=record)
        self._kept[record.id] = (state, made)
        while len(self._kept) > MOST_CURVES:
            self._kept.popitem(last=False)
        return made
