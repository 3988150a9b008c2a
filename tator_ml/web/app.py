"""The Flask application, made from settings and services."""

from __future__ import annotations

import hmac
import logging

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from tator_ml.services import EngineWatch, Services
from tator_ml.web import control, strip, wire
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 64 * 2**20
OPEN_PATHS = ("/strip",)  # shown inside the browser's page, protected by a key of their own


def create_app(settings: Settings, services: Services) -> Flask:
    """Build the application; whoever calls this owns ``services``."""
    app = Flask("tator")
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES
    watch = EngineWatch(services.engine)
    watch.start()
    app.extensions["tator"] = services
    app.extensions["tator_watch"] = watch
    app.register_blueprint(wire.blueprint(services, watch))
    app.register_blueprint(strip.blueprint(settings, services, watch))
    app.register_blueprint(control.blueprint(settings, services))
    if settings.enable_metrics:
        services.metrics.watch(settings, lambda: watch.status)
        app.add_url_rule("/metrics", "metrics", lambda: Response(services.metrics.page(), mimetype="text/plain"))

    @app.before_request
    def _authorised() -> Response | None:
        if settings.password is None or request.path.startswith(OPEN_PATHS):
            return None
        given = request.authorization
        expected = settings.password.get_secret_value()
        if (
            given is not None
            and given.type == "basic"
            and hmac.compare_digest((given.password or "").encode(), expected.encode())
            and hmac.compare_digest((given.username or "").encode(), settings.username.encode())
        ):
            return None
        answer = jsonify(error="Tator needs its user name and password; `tator connect` sets them.")
        answer.status_code = 401
        answer.headers["WWW-Authenticate"] = 'Basic realm="Tator"'
        return answer

    @app.errorhandler(TatorError)
    def _sentence(error: TatorError) -> tuple[Response, int]:
        return jsonify(error=str(error)), 400

    @app.errorhandler(HTTPException)
    def _refused(error: HTTPException) -> tuple[Response, int]:
        return jsonify(error=error.description or error.name), error.code or 500

    @app.errorhandler(Exception)
    def _unexpected(error: Exception) -> tuple[Response, int]:
        log.exception("request %s %s failed", request.method, request.path)
        return jsonify(error="Tator had an unexpected error; its log says more."), 500

    return app
