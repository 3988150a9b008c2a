"""The control API under ``/tator/api``: what commands and pages ask the backend about itself, and tell it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, TypeVar

from flask import Blueprint, Response, current_app, jsonify, request
from pydantic import ValidationError
from werkzeug.exceptions import BadRequest, NotFound

from tator_ml import jobs as job_queue
from tator_ml.engine.messages import EngineError, Status
from tator_ml.engine.segmenters import names
from tator_ml.jobs import JobError, JobRecord, JobRecords, ping_worker
from tator_ml.jobs.connection import living_workers, reached
from tator_ml.launch import open_jobs
from tator_ml.learning.stores import head_registry
from tator_ml.projects import KeptWords
from tator_ml.running.redis_server import redis_answers, redis_url
from tator_ml.services import Services
from tator_ml.web import models
from tator_ml.web.openapi import describe, document
from tator_sdk.doctor import Check
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

Body = TypeVar("Body", bound=models.Change)

PROJECT = "Number of the project in Label Studio."


def blueprint(settings: Settings, services: Services) -> Blueprint:
    """Routes of the control API."""
    routes = Blueprint("control", __name__, url_prefix="/tator/api")

    @routes.get("/openapi.json")
    @describe(models.Document)
    def openapi() -> Response:
        """This description of the control API."""
        return jsonify(document(current_app))

    @routes.get("/check")
    @describe(models.Checks)
    def check() -> Response:
        """Engine, weights, Redis and worker, as ``tator doctor`` shows them."""
        return jsonify(checks=[asdict(one) for one in [*_engine(services), *job_checks(settings)]])

    @routes.get("/status")
    @describe(Status)
    def status() -> Response:
        """What the engine is doing now: lanes with ages, warm pictures with bytes, memory, how often it was warm."""
        return jsonify(asdict(services.engine.status()))

    @routes.put("/budget")
    @describe(Status, models.Budget)
    def budget() -> Response:
        """Change the memory for warm pictures, until the engine is started again."""
        services.engine.set_budget(_body(models.Budget).budget_bytes)
        return jsonify(asdict(services.engine.status()))

    @routes.get("/segmenters")
    @describe(models.Segmenters)
    def segmenters() -> Response:
        """The segmenters that a project can choose from."""
        return jsonify(names=list(names()), default=settings.segmenter)

    @routes.get("/projects/<int:project>")
    @describe(models.Choices, project=PROJECT)
    def choices(project: int) -> Response:
        """What was chosen for a project."""
        return jsonify(services.projects.get(project).as_json())

    @routes.put("/projects/<int:project>")
    @describe(models.Choices, models.ChoicesChange, project=PROJECT)
    def choose(project: int) -> Response:
        """Choose for a project, from the next request on; what is left out stays as it is."""
        body = _body(models.ChoicesChange)
        chosen = {name: getattr(body, name) for name in body.model_fields_set}
        if body.words is not None:
            chosen["words"] = KeptWords(body.words.text, body.words.field)
        services.choose(project, **chosen)
        return jsonify(services.projects.get(project).as_json())

    @routes.get("/models")
    @describe(models.Heads, project="Only heads of this project.")
    def heads() -> Response:
        """Class heads in the registry."""
        found = head_registry(settings).list(_number("project"))
        return jsonify(
            heads=[{"version": one.version, "project": one.project, "created": one.created} for one in found]
        )

    @routes.get("/jobs")
    @describe(models.Jobs, project="Only jobs of this project.")
    def jobs() -> Response:
        """The fifty newest jobs."""
        with reached(settings) as connection:
            return jsonify(jobs=[_job(one) for one in JobRecords(connection).list(_number("project"))])

    @routes.get("/jobs/<job_id>")
    @describe(models.Job, job_id="The job's id.")
    def job(job_id: str) -> Response:
        """How one job stands."""
        with reached(settings) as connection:
            return jsonify(_job(_found(JobRecords(connection), job_id)))

    @routes.post("/jobs/<job_id>/cancel")
    @describe(models.Job, job_id="The job's id.")
    def cancel(job_id: str) -> Response:
        """End a job: a waiting one at once, a running one at its next step."""
        _json_only()
        with reached(settings) as connection:
            _found(JobRecords(connection), job_id)
        return jsonify(_job(job_queue.cancel(settings, job_id)))

    return routes


def _body(model: type[Body]) -> Body:
    """The request's body.

    Raises:
        BadRequest: it is not what the route takes.
    """
    _json_only()
    try:
        return model.model_validate(request.get_json())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadRequest(f"This cannot be used: {f'{where}: ' if where else ''}{first['msg']}.") from error


def _json_only() -> None:
    # a page of another site cannot send this content type without being asked first
    if not request.is_json:
        raise BadRequest("Send JSON, with Content-Type: application/json.")


def _number(name: str) -> int | None:
    given = request.args.get(name)
    if given is None:
        return None
    if not (given.isascii() and given.isdigit()):
        raise BadRequest(f"{name} must be a number.")
    return int(given)


def _found(records: JobRecords, job_id: str) -> JobRecord:
    try:
        return records.get(job_id)
    except JobError as error:
        raise NotFound(str(error)) from error


def _job(record: JobRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in models.Job.model_fields}


def _engine(services: Services) -> list[Check]:
    try:
        status = services.engine.status()
    except EngineError as error:
        return [Check("engine", "bad", "it does not answer", str(error))]
    if not status.ready:
        return [Check("engine", "bad", status.error or "it is still loading", "read its log under TATOR_HOME/logs")]
    checks = [Check("engine", "ok", f"ready on {status.device}, {len(status.warm)} pictures warm")]
    if status.model_version.startswith("starter"):
        mend = "set TATOR_SEGMENTER=mobile_sam or sam2-tiny for photographs"
        checks.append(Check("weights", "hint", f"{status.model_version}: starter weights, for trying out", mend))
    else:
        checks.append(Check("weights", "ok", status.model_version))
    return checks


def job_checks(settings: Settings) -> list[Check]:
    """What `tator doctor` says of Redis and the workers."""
    if not redis_answers(settings):
        return [Check("Redis", "bad", f"{_without_password(redis_url(settings))} does not answer", "run `tator up`")]
    checks = [Check("Redis", "ok", "answers")]
    try:
        checks.append(Check("worker", "ok", f"took a job and finished it in {ping_worker(settings):.1f} s"))
    except TatorError as error:
        checks.append(_silent_worker(settings, str(error)))
    return checks


def _silent_worker(settings: Settings, error: str) -> Check:
    """One that is training, or on a machine that is very busy, is no fault; only its absence is."""
    with reached(settings) as connection:
        if not living_workers(connection):
            return Check("worker", "bad", "none answers", error)
    running = [one.title for one in open_jobs(settings) if one.status == "running"]
    said = f"works on '{running[0]}'" if running else "lives, but took no job in time"
    return Check("worker", "hint", said, "`tator jobs list` shows what waits; more workers: `tator worker`")


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
