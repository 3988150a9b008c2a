"""Who may pass: looked at before every request, whatever it is for."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from flask import Flask, Response, g, jsonify, redirect, request, session, url_for
from flask.sessions import SecureCookieSessionInterface
from flask.typing import ResponseReturnValue
from flask_limiter import Limiter
from limits import parse
from werkzeug.exceptions import Forbidden, TooManyRequests, Unauthorized
from werkzeug.middleware.proxy_fix import ProxyFix

from tator_ml.web.access import Visitor, on_dashboard
from tator_ml.web.sessions import SESSION_SECONDS, Sessions
from tator_sdk.settings import LOOPBACK_HOSTS, Settings

SESSION = "session"
"""Under which name the browser's cookie has the session's id."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
STRIP = "/strip"
"""Shown inside the labelling page, protected by a key of its own."""
ALWAYS = ("dashboard.static", "signing.sign_in")
"""What a browser needs to sign in with."""
# So many that no Label Studio with a forgotten webhook is shut out, too few to guess a password with.
WRONG_PASSWORDS = parse("600/minute")
# An EventSource cannot read a status: it is told by an event, and asks no more.
SIGNED_OUT = "retry: 600000\nevent: signed-out\ndata: {}\n\n"


class Guard:
    """Decides from settings, Basic auth and sessions who sent a request."""

    def __init__(self, settings: Settings, sessions: Sessions, limiter: Limiter) -> None:
        self._settings = settings
        self._sessions = sessions
        self._limiter = limiter

    def check(self) -> ResponseReturnValue | None:
        """Name the visitor, or answer in place of the page.

        Raises:
            Forbidden: another site's page sent the request, or it came by a name that is not this machine's.
        """
        _refuse_other_sites()
        if self._settings.password is None:
            self._check_host()
        if _on_strip() or self._settings.password is None:
            g.visitor = Visitor("this machine")
        elif self._has_password():
            g.visitor = Visitor("administrator")
        elif on_dashboard(request.path):
            return self._signed_in()
        else:
            answer = jsonify(error="Tator needs its user name and password; `tator connect` sets them.")
            answer.headers["WWW-Authenticate"] = 'Basic realm="Tator"'
            return answer, 401
        return None

    def password_is(self, username: str, password: str) -> bool:
        """Whether these are the administrator's; takes as long for a wrong name as for a wrong password."""
        expected = self._settings.password
        if expected is None:
            return False
        right = hmac.compare_digest(password.encode(), expected.get_secret_value().encode())
        return hmac.compare_digest(username.encode(), self._settings.username.encode()) and right

    def _has_password(self) -> bool:
        given = request.authorization
        if given is None or given.type != "basic":
            return False
        if not self._limiter.limiter.test(WRONG_PASSWORDS, "basic", request.remote_addr or ""):
            raise TooManyRequests("Too many wrong passwords came from this address; wait a minute.")
        right = self.password_is(given.username or "", given.password or "")
        if not right:
            self._limiter.limiter.hit(WRONG_PASSWORDS, "basic", request.remote_addr or "")
        return right

    def _signed_in(self) -> ResponseReturnValue | None:
        name = session.get(SESSION)
        who = self._sessions.visitor(name)
        if who is not None:
            g.visitor = who
            g.welcome = lambda: self._sessions.visitor(name) == who
            return None
        if request.endpoint in ALWAYS:
            return None
        if request.accept_mimetypes.best == "text/event-stream":
            return Response(SIGNED_OUT, mimetype="text/event-stream")
        if request.method == "GET":
            return redirect(url_for("signing.sign_in", next=request.full_path.rstrip("?")))
        raise Unauthorized(
            "You are signed out, so nothing was changed. Sign in, go back to the form, and send it again."
        )

    def _check_host(self) -> None:
        """Against DNS rebinding: a page of another site must not reach what needs no password by a name of its own."""
        people = request.path == "/tator" or request.path.startswith("/tator/") or _on_strip()
        if not people and "Origin" not in request.headers:
            return  # Label Studio's own call, by whatever name it knows this machine
        name = urlsplit(f"//{request.host}").hostname or ""
        if name and name not in LOOPBACK_HOSTS:  # no browser sends an empty one
            raise Forbidden(
                f"Without a password Tator's pages are answered under loopback names only, not {name}: open "
                f"http://127.0.0.1:{self._settings.port}/tator/, or set TATOR_PASSWORD."
            )


def _on_strip() -> bool:
    return request.path == STRIP or request.path.startswith(STRIP + "/")


def _refuse_other_sites() -> None:
    """Against what a page of another site has its visitor's browser send, which may reach what that page cannot.

    A browser says whose a request is (https://www.w3.org/TR/fetch-metadata/), and older ones, or ones without TLS,
    where it comes from; Label Studio and our own commands say neither. Forms carry a token besides.

    Raises:
        Forbidden: it would change something, and another site sent it.
    """
    if request.method in SAFE:
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site is None and not (on_dashboard(request.path) or _on_strip()):
        origin = request.headers.get("Origin")
        site = "none" if origin is None or urlsplit(origin).netloc == request.host else "cross-site"
    if site not in (None, "none", "same-origin"):
        raise Forbidden("A page of another site sent this, so nothing was done.")


class _Cookies(SecureCookieSessionInterface):
    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def prepare_cookies(app: Flask, settings: Settings) -> None:
    """Settings of cookies and forms: theirs is the dashboard only, by no script, from no other site."""
    app.session_interface = _Cookies()
    app.config["SESSION_COOKIE_NAME"] = f"tator_{settings.port}"  # ports share cookies
    app.config["SESSION_COOKIE_PATH"] = "/tator"
    app.config["SESSION_COOKIE_HTTPONLY"] = True
    app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
    app.config["WTF_CSRF_TIME_LIMIT"] = int(SESSION_SECONDS)
    if settings.behind_proxy:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)  # type: ignore[method-assign]
