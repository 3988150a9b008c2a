"""Signing in to the dashboard and out of it: with one's own Label Studio token, or as the administrator."""

from __future__ import annotations

import re

from flask import Blueprint, Flask, Response, flash, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

from tator_ml.web.guard import SESSION, Guard
from tator_ml.web.sessions import Sessions
from tator_sdk.auth import TokenRefused
from tator_sdk.errors import TatorError
from tator_sdk.settings import LOOPBACK_HOSTS, Settings
from tator_sdk.studio import StudioError

EACH_ADDRESS = "10 per minute"
ALL_ADDRESSES = "120 per minute"
_WITHIN = re.compile(r"/tator/(?!api/|sign-)[\w\-./?=&%~+,:]*", re.ASCII)


def make_limiter(app: Flask) -> Limiter:
    """What counts attempts; in memory, since one process answers."""
    return Limiter(get_remote_address, app=app, storage_uri="memory://", headers_enabled=True)


def within(address: str | None) -> str:
    """An address to go to after signing in: one of the dashboard's own, whatever was given."""
    return address if address and _WITHIN.fullmatch(address) else url_for("dashboard.home")


def blueprint(settings: Settings, sessions: Sessions, guard: Guard, limiter: Limiter) -> Blueprint:
    """Routes of signing in and out."""
    routes = Blueprint("signing", __name__, url_prefix="/tator", template_folder="dashboard/templates")

    @routes.route("/sign-in", methods=["GET", "POST"])
    @limiter.limit(EACH_ADDRESS, methods=["POST"], deduct_when=_failed)
    @limiter.limit(ALL_ADDRESSES, key_func=lambda: "everybody", methods=["POST"], deduct_when=_failed)
    def sign_in() -> ResponseReturnValue:
        goal = within(request.values.get("next"))
        if settings.password is None:
            return redirect(goal)
        said, status = None, 200
        if request.method == "POST":
            try:
                _enter(_identify())
                return redirect(goal, 303)
            except (TokenRefused, StudioError) as error:
                said = _explained(error)
                status = 401 if said != str(error) else 502
            except TatorError as error:
                said, status = str(error), 401
        return _page(goal, said), status

    @routes.post("/sign-out")
    def sign_out() -> Response:
        sessions.end(session.get(SESSION))
        session.clear()
        flash("You are signed out.", "good")
        return redirect(url_for("signing.sign_in"), 303)  # type: ignore[return-value]

    def _identify() -> str:
        """A new session of whoever filled in the form."""
        if request.form.get("as") != "administrator":
            return sessions.begin(request.form.get("token", "").strip())
        if guard.password_is(request.form.get("username", ""), request.form.get("password", "")):
            return sessions.begin(None)
        raise TatorError("User name and password do not go together.")

    def _enter(name: str) -> None:
        sessions.end(session.get(SESSION))
        session.clear()  # with it whatever was planted before: session, form tokens
        session[SESSION] = name

    def _page(goal: str, said: str | None) -> str:
        sender = request.remote_addr or "localhost"  # a socket file has no address
        unsafe = not request.is_secure and sender not in LOOPBACK_HOSTS
        return render_template(
            "dashboard/signing/page.html", goal=goal, said=said, studio=settings.label_studio_url, unsafe=unsafe
        )

    return routes


def _failed(answer: Response) -> bool:
    return answer.status_code != 303


def _explained(error: TatorError) -> str:
    """What to say of an attempt; a refusal says nothing of what Label Studio answered."""
    refused = isinstance(error, TokenRefused) or (isinstance(error, StudioError) and error.status in {401, 403})
    if not refused:
        return str(error)
    return (
        "Label Studio does not take this token. Make a personal access token under Account & Settings, or copy the "
        "legacy token there, where those are switched on."
    )
