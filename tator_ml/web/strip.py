"""The live strip inside the labelling screen: what the backend does now, and its last problem.

The editor hides every error of a backend, so this is where an annotator reads one.
"""

from __future__ import annotations

import hmac
import time

from flask import Blueprint, Response, jsonify, render_template, request
from werkzeug.exceptions import Forbidden

from tator_ml.backend import project_number
from tator_ml.learning.progress import LearningProgress
from tator_ml.services import EngineWatch, Services
from tator_sdk.connect import strip_key
from tator_sdk.settings import Settings


def blueprint(settings: Settings, services: Services, watch: EngineWatch) -> Blueprint:
    """Routes of the strip."""
    routes = Blueprint("strip", __name__, template_folder="templates")
    learning = LearningProgress(settings)

    def project() -> int | None:
        number = project_number(request.args.get("project"))
        if not hmac.compare_digest(request.args.get("key", "").encode(), strip_key(settings, number).encode()):
            raise Forbidden("This strip needs the key that `tator connect` writes into the configuration.")
        return number

    @routes.get("/strip")
    def page() -> Response:
        number = project()
        answer = Response(render_template("strip.html", project=number, key=request.args.get("key", "")))
        answer.headers["Cache-Control"] = "no-store"
        return answer

    @routes.get("/strip/state")
    def state() -> Response:
        number = project()
        known, status = services.notices.get(number), watch.status
        waiting = status.waiting.get("click", 0)
        return jsonify(
            ready=status.ready,
            engine_error=None if status.ready else status.error,
            model=status.version_with(services.projects.get(number).head),
            learning=learning.said(number),
            waiting=waiting,
            age_seconds=round(time.time() - known.at, 1) if known.at else None,
            **known.as_json(),
        )

    return routes
