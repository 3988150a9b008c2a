"""The Flask application, made from settings and services."""

from __future__ import annotations

import hmac
import logging

from flask import Flask, Response, g, jsonify, request
from flask_wtf import CSRFProtect
from werkzeug.exceptions import HTTPException

from tator_ml.services import EngineWatch, Services
from tator_ml.web import control, dashboard, strip, wire
from tator_ml.web.access import Visitor, secret_of
from tator_ml.web.dashboard.live import Live
from tator_ml.web.dashboard.page import Dashboard
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
    app.secret_key = secret_of(settings.home)
    guard = CSRFProtect(app)
    for machines in (
        wire.blueprint(services, watch),
        strip.blueprint(settings, services, watch),
        control.blueprint(settings, services),
    ):
        guard.exempt(machines)  # they take no forms: JSON by its content type
        app.register_blueprint(machines)
    live = Live(settings.dashboard_streams)
    app.register_blueprint(dashboard.blueprint(Dashboard(settings, services, watch, live)))
    if settings.enable_metrics:
        services.metrics.watch(settings, lambda: watch.status)
        app.add_url_rule("/metrics", "metrics", lambda: Response(services.metrics.page(), mimetype="text/plain"))

    @app.before_request
    def _authorised() -> Response | None:
        if settings.password is None or request.path.startswith(OPEN_PATHS):
            g.visitor = Visitor("this machine")
            return None
        given = request.authorization
        expected = settings.password.get_secret_value()
        if (
            given is not None
            and given.type == "basic"
            and hmac.compare_digest((given.password or "").encode(), expected.encode())
            and hmac.compare_digest((given.username or "").encode(), settings.username.encode())
        ):
            g.visitor = Visitor("administrator")
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
