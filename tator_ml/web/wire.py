"""Label Studio's calls: ``/health``, ``/setup``, ``/predict``, ``/versions``, ``/webhook``.

The format is in PROTOCOL.md and Label Studio's ``ml/api_connector.py``. ``/health`` and ``/setup``
touch neither engine nor lock: Label Studio calls both whenever a Data Manager is opened, and gives
up on ``/health`` after a second.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import BadRequest

from tator_ml.backend import TatorBackend
from tator_ml.prompts.request import project_number
from tator_ml.services import EngineWatch, Services
from tator_ml.web.body import read_predict

log = logging.getLogger(__name__)


def blueprint(services: Services, watch: EngineWatch) -> Blueprint:
    """Routes of the wire."""
    routes = Blueprint("wire", __name__)

    @routes.get("/")
    @routes.get("/health")
    def health() -> Response:
        return jsonify(status="UP", model_class="TatorBackend")

    @routes.post("/setup")
    def setup() -> Response:
        body = _body()
        log.info("setup of project %s by %s", body.get("project"), body.get("hostname"))
        chosen = services.projects.get(project_number(body.get("project")))
        return jsonify(model_version=watch.status.version_with(chosen.head, chosen.clicks_by))

    @routes.get("/versions")
    def versions() -> Response:
        version = watch.status.model_version
        return jsonify(versions=[version] if version else [])

    @routes.post("/predict")
    def predict() -> Response:
        body = read_predict(request.get_data())
        tasks = body.get("tasks")
        if not isinstance(tasks, list) or not all(isinstance(task, Mapping) for task in tasks):
            raise BadRequest("The request has no list of tasks.")
        params = body.get("params")
        context = params.get("context") if isinstance(params, Mapping) else None
        backend = TatorBackend(body.get("project"), str(body.get("label_config") or ""), services)
        context = context if isinstance(context, Mapping) else None
        results = backend.predict(tasks, context, asked_by=request.headers.get("User-Agent"))
        return jsonify(results=results)

    @routes.post("/webhook")
    def webhook() -> Response:
        body = _body()
        project = body.get("project")
        number = project.get("id") if isinstance(project, Mapping) else project_number(project)
        backend = TatorBackend(number, None, services)
        return jsonify(result=backend.fit(str(body.get("action", "")), body), status="ok")

    return routes


def _body() -> Mapping[str, Any]:
    body = request.get_json(force=True, silent=True)
    if not isinstance(body, Mapping):
        raise BadRequest("The request is not a JSON object.")
    return body
