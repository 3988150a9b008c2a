"""The Flask application, made from settings and services."""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask, Response, jsonify, request
from flask.json.provider import DefaultJSONProvider
from flask.typing import ResponseReturnValue
from flask_wtf import CSRFProtect
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException, TooManyRequests

from tator_ml.engine.messages import EngineError
from tator_ml.jobs.connection import RedisAway
from tator_ml.services import EngineWatch, Services
from tator_ml.web import control, dashboard, signing, strip, wire
from tator_ml.web.access import on_dashboard, secret_of
from tator_ml.web.dashboard.live import Live
from tator_ml.web.dashboard.page import Dashboard
from tator_ml.web.guard import Guard, prepare_cookies
from tator_ml.web.membership import member
from tator_ml.web.sessions import Sessions
from tator_sdk.disk import FULL, disk_is_full
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 64 * 2**20
AWAY = (EngineError, RedisAway)
"""Errors of what is away for the moment, whatever was asked; the wire tells its own on the strip."""


class _Json(DefaultJSONProvider):
    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        try:
            return super().loads(s, **kwargs)
        except RecursionError as error:
            raise ValueError("JSON that is nested too deeply") from error


def create_app(settings: Settings, services: Services) -> Flask:
    """Build the application; whoever calls this owns ``services``."""
    app = Flask("tator")
    app.json = _Json(app)
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES
    watch = EngineWatch(services.engine)
    watch.start()
    app.extensions["tator"] = services
    app.extensions["tator_watch"] = watch
    app.secret_key = secret_of(settings.home)
    prepare_cookies(app, settings)
    sessions = Sessions(lambda token: member(settings, token))
    limiter = signing.make_limiter(app)
    guard = Guard(settings, sessions, limiter)
    app.before_request(guard.check)  # before forms are looked at: who is signed out is told that
    forms = CSRFProtect(app)
    for machines in (
        wire.blueprint(services, watch),
        strip.blueprint(settings, services, watch),
        control.blueprint(settings, services),
    ):
        forms.exempt(machines)  # they take no forms: JSON by its content type
        app.register_blueprint(machines)
    live = Live(settings.dashboard_streams)
    app.register_blueprint(dashboard.blueprint(Dashboard(settings, services, watch, live)))
    app.register_blueprint(signing.blueprint(settings, sessions, guard, limiter))
    if settings.enable_metrics:
        services.metrics.watch(settings, lambda: watch.status)
        app.add_url_rule("/metrics", "metrics", lambda: Response(services.metrics.page(), mimetype="text/plain"))
    _say_errors(app)
    app.after_request(_close)
    return app


def _close(answer: Response) -> Response:
    """What pages and the strip have not said themselves: an answer for programs is no page, in no frame."""
    answer.headers.setdefault("X-Content-Type-Options", "nosniff")
    answer.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    return answer


def _say_errors(app: Flask) -> None:
    """Errors are pages for people, and JSON for programs."""

    def say(said: str, status: int) -> ResponseReturnValue:
        return (dashboard.problem(said) if on_dashboard(request.path) else jsonify(error=said)), status

    @app.errorhandler(TatorError)
    def _sentence(error: TatorError) -> ResponseReturnValue:
        return say(str(error), 503 if isinstance(error, AWAY) else 400)

    @app.errorhandler(CSRFError)
    def _stale(error: CSRFError) -> ResponseReturnValue:
        said = (
            "This form is old, or not one of Tator's, so nothing was changed. Open its page again, and send it again."
        )
        return say(said, error.code or 400)

    @app.errorhandler(TooManyRequests)
    def _too_many(error: TooManyRequests) -> ResponseReturnValue:
        return say("There were too many attempts; wait a minute, then try again.", 429)

    @app.errorhandler(HTTPException)
    def _refused(error: HTTPException) -> ResponseReturnValue:
        return say(error.description or error.name, error.code or 500)

    @app.errorhandler(Exception)
    def _unexpected(error: Exception) -> ResponseReturnValue:
        log.exception("request %s %s failed", request.method, request.path)
        if disk_is_full(error):
            return say(FULL, 507)
        return say("Tator had an unexpected error; its log says more.", 500)
