"""The control API under ``/tator/api``: what commands and pages ask the backend about itself."""

from __future__ import annotations

from dataclasses import asdict

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import BadRequest

from tator_ml.engine.messages import EngineError
from tator_ml.jobs import ping_worker
from tator_ml.redis_server import redis_answers, redis_url
from tator_ml.services import Services
from tator_sdk.doctor import Check
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings


def blueprint(settings: Settings, services: Services) -> Blueprint:
    """Routes of the control API."""
    routes = Blueprint("control", __name__, url_prefix="/tator/api")

    @routes.get("/check")
    def check() -> Response:
        """Engine, weights, Redis and worker, as ``tator doctor`` shows them."""
        return jsonify(checks=[asdict(one) for one in [*_engine(services), *_jobs(settings)]])

    @routes.get("/status")
    def status() -> Response:
        """What the engine is doing now."""
        return jsonify(asdict(services.engine.status()))

    @routes.get("/projects/<int:project>")
    def choices(project: int) -> Response:
        """What was chosen for a project."""
        return jsonify(asdict(services.projects.get(project)))

    @routes.put("/projects/<int:project>")
    def choose(project: int) -> Response:
        """Choose for a project: ``{"assists": ["refine", "classify"]}``, or null for the default."""
        # JSON by its content type only: a page of another site cannot send that without being asked first
        body = request.get_json()
        assists = body.get("assists") if isinstance(body, dict) else None
        if assists is not None and not (isinstance(assists, list) and all(isinstance(one, str) for one in assists)):
            raise BadRequest('Send {"assists": ["refine", "classify"]} or {"assists": null}.')
        services.projects.choose(project, assists=None if assists is None else tuple(assists))
        return choices(project)

    return routes


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


def _jobs(settings: Settings) -> list[Check]:
    if not redis_answers(settings):
        return [Check("Redis", "bad", f"{_without_password(redis_url(settings))} does not answer", "run `tator up`")]
    checks = [Check("Redis", "ok", "answers")]
    try:
        checks.append(Check("worker", "ok", f"took a job and finished it in {ping_worker(settings):.1f} s"))
    except TatorError as error:
        checks.append(Check("worker", "bad", "none answers", str(error)))
    return checks


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
