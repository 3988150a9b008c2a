"""The live strip inside the labelling screen: what the backend does now, and its last problem.

The editor hides every error of a backend, so this is where an annotator reads one.
"""

from __future__ import annotations

import hmac
import threading
import time
from typing import Any

from flask import Blueprint, Response, jsonify, render_template, request
from werkzeug.exceptions import BadRequest, Forbidden

from tator_ml.learning.progress import LearningProgress
from tator_ml.projects import ASSISTS
from tator_ml.prompts.request import project_number
from tator_ml.services import EngineWatch, Services
from tator_sdk.connect import strip_key
from tator_sdk.settings import Settings

SWITCHES = ("classify", "refine", "preload")
# Shown in a frame of Label Studio, wherever that is; its script and style stand in the page.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)


def blueprint(settings: Settings, services: Services, watch: EngineWatch) -> Blueprint:
    """Routes of the strip."""
    routes = Blueprint("strip", __name__, template_folder="templates")
    learning = LearningProgress(settings)
    turning = threading.Lock()

    def project() -> int | None:
        number = project_number(request.args.get("project"))
        if not hmac.compare_digest(request.args.get("key", "").encode(), strip_key(settings, number).encode()):
            raise Forbidden(
                "This strip needs its key, which stands in what `tator label-config --classes … --project N` prints."
            )
        return number

    @routes.get("/strip")
    def page() -> Response:
        number = project()
        answer = Response(render_template("strip.html", project=number, key=request.args.get("key", "")))
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["Content-Security-Policy"] = POLICY
        answer.headers["Referrer-Policy"] = "no-referrer"  # the address holds the key
        return answer

    @routes.get("/strip/state")
    def state() -> Response:
        number = project()
        known, status = services.notices.get(number), watch.status
        chosen = services.projects.get(number)
        return jsonify(
            ready=status.ready,
            engine_error=None if status.ready else status.error,
            model=status.version_with(chosen.head, chosen.clicks_by),
            learning=learning.said(number),
            waiting=status.waiting.get("click", 0),
            oldest_seconds=round(status.oldest_seconds.get("click", 0.0), 1),
            encoding=status.waiting.get("preload", 0),
            choices={
                "classify": chosen.assists is None or "classify" in chosen.assists,
                "refine": chosen.assists is None or "refine" in chosen.assists,
                "preload": services.preloads_for(chosen),
                "output": chosen.output,
                "words": None if chosen.words is None else chosen.words.text or "all",
            },
            age_seconds=round(time.time() - known.at, 1) if known.at else None,
            **known.as_json(),
        )

    @routes.post("/strip/choices")
    def choose() -> Response:
        number = project()
        # JSON by its content type only: a page of another site cannot send that without being asked first
        if not request.is_json or number is None:
            raise BadRequest("Send JSON about a project.")
        body = request.get_json()
        if not isinstance(body, dict) or not body or set(body) - {*SWITCHES, "output", "words"}:
            raise BadRequest(f"Send one of {', '.join(SWITCHES)}, output and words.")
        if body.get("words") is not None:
            raise BadRequest("Words can only be forgotten here: send null.")
        if not all(isinstance(body[name], bool) for name in SWITCHES if name in body):
            raise BadRequest("A switch is true or false.")
        changed: dict[str, Any] = {name: body[name] for name in ("preload", "output", "words") if name in body}
        with turning:  # two switches make one choice: the second must see the first
            if {"classify", "refine"} & set(body):
                now = services.projects.get(number).assists
                changed["assists"] = tuple(name for name in ASSISTS if body.get(name, now is None or name in now))
            services.choose(number, **changed)
        return state()

    return routes
