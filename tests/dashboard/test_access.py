"""Who gets in: sign-in by token and password, forms, names of the machine, and what those without rights see."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Blueprint
from flask.testing import FlaskClient
from limits import parse
from pydantic import SecretStr
from werkzeug.test import TestResponse

from tator_ml.web.access import Visitor, visitor
from tator_ml.web.dashboard import now
from tator_ml.web.signing import within
from tator_sdk.auth import TokenRefused
from tator_sdk.settings import Settings
from tator_sdk.studio import StudioError

from .conftest import Site, build_site, close_site

PASSWORD = "a long password"
TOKEN = "0123456789abcdef-of-ann"
BASIC = ("tator", PASSWORD)


class Members:
    """People of a Label Studio by their tokens."""

    def __init__(self) -> None:
        self.projects = {TOKEN: frozenset({1, 2})}
        self.away = False

    def __call__(self, settings: Settings, token: str) -> Visitor:
        if self.away:
            raise StudioError("Label Studio at http://studio cannot be reached; is it running?", True)
        if token not in self.projects:
            raise TokenRefused(f"refused, and {token} must not be shown")
        return Visitor("ann@example.com", self.projects[token], signed_in=True)


@pytest.fixture
def members(monkeypatch: pytest.MonkeyPatch) -> Members:
    made = Members()
    monkeypatch.setattr("tator_ml.web.app.member", made)
    return made


@pytest.fixture
def locked(settings: Settings, members: Members, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A dashboard behind a password, with a page that only says who looks and what of a project."""
    with_routes = now.add

    def add(routes: Blueprint, dashboard: Any) -> None:
        with_routes(routes, dashboard)
        routes.add_url_rule("/who/<int:project>", "now_who", lambda project: visitor().require(project) or "seen")
        routes.add_url_rule("/change", "now_change", lambda: "changed", methods=["POST"])

    monkeypatch.setattr(now, "add", add)
    made = build_site(settings.model_copy(update={"password": SecretStr(PASSWORD)}))
    made.client.application.config["WTF_CSRF_ENABLED"] = True
    yield made
    close_site(made)


def form_token(client: FlaskClient, address: str = "/tator/sign-in") -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', client.get(address).text)
    assert found is not None
    return found[1]


def sign_in(client: FlaskClient, **given: str) -> TestResponse:
    return client.post("/tator/sign-in", data={"csrf_token": form_token(client), **given})


def test_pages_ask_for_a_sign_in_and_come_back_to_where_one_was(locked: Site) -> None:
    answer = locked.client.get("/tator/now?project=1")
    assert answer.status_code == 302
    assert answer.headers["Location"] == "/tator/sign-in?next=/tator/now?project%3D1"
    page = locked.client.get(answer.headers["Location"])
    assert page.status_code == 200 and 'value="/tator/now?project=1"' in page.text
    assert "<nav" not in page.text and "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert locked.client.get("/tator/static/dashboard.css").status_code == 200
    answer = sign_in(locked.client, token=TOKEN, next="/tator/now?project=1")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/tator/now?project=1")
    page = locked.client.get("/tator/now")
    assert "ann@example.com" in page.text and "Sign out" in page.text


def test_a_member_sees_their_projects_and_the_administrator_all(locked: Site) -> None:
    sign_in(locked.client, token=f" {TOKEN}\n")
    assert locked.client.get("/tator/who/2").text == "seen"
    refused = locked.client.get("/tator/who/3")
    assert refused.status_code == 403 and "administrator can sign in" in refused.text and "<h1>" in refused.text
    sign_in(locked.client, username="tator", password=PASSWORD, **{"as": "administrator"})
    assert locked.client.get("/tator/who/3").text == "seen"


def test_signing_out_ends_the_session_itself(locked: Site) -> None:
    sign_in(locked.client, token=TOKEN)
    cookie = locked.client.get_cookie("tator_9090", path="/tator")
    assert cookie is not None and cookie.http_only and cookie.same_site == "Lax"
    answer = locked.client.post("/tator/sign-out", data={"csrf_token": form_token(locked.client, "/tator/now")})
    assert answer.status_code == 303
    assert "You are signed out." in locked.client.get("/tator/sign-in").text
    locked.client.set_cookie("tator_9090", cookie.value, path="/tator")
    assert locked.client.get("/tator/now").status_code == 302, "a kept cookie opens nothing"


def test_refusals_do_not_say_which_was_wrong_nor_repeat_the_token(
    locked: Site, members: Members, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = [
        sign_in(locked.client, username=name, password=word, **{"as": "administrator"})
        for name, word in (("tator", "wrong"), ("wrong", PASSWORD))
    ]
    assert [one.status_code for one in wrong] == [401, 401]
    said = [re.search(r'role="alert">([^<]+)', one.text) for one in wrong]
    assert said[0] and said[1] and said[0][1] == said[1][1] == "User name and password do not go together."
    refused = sign_in(locked.client, token="a-token-of-somebody")
    assert refused.status_code == 401 and "does not take this token" in refused.text
    assert "a-token-of-somebody" not in refused.text + caplog.text
    members.away = True
    assert sign_in(locked.client, token=TOKEN).status_code == 502
    assert TOKEN not in caplog.text + str(locked.client.get_cookie("tator_9090", path="/tator"))


def test_attempts_are_limited_by_address(locked: Site) -> None:
    data = {"csrf_token": form_token(locked.client), "as": "administrator", "username": "tator", "password": "guess"}
    answers = [locked.client.post("/tator/sign-in", data=data).status_code for _ in range(12)]
    assert answers == [401] * 10 + [429] * 2
    right = locked.client.post("/tator/sign-in", data={**data, "password": PASSWORD})
    assert right.status_code == 429 and "wait a minute" in right.text and int(right.headers["Retry-After"]) <= 60
    elsewhere = {"REMOTE_ADDR": "192.0.2.7"}
    data["csrf_token"] = form_token(locked.client)
    answer = locked.client.post("/tator/sign-in", data={**data, "password": PASSWORD}, environ_base=elsewhere)
    assert answer.status_code == 303


def test_guessing_by_basic_auth_is_limited_too(locked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tator_ml.web.guard.WRONG_PASSWORDS", parse("3/minute"))
    answers = [locked.client.get("/health", auth=("tator", "guess")).status_code for _ in range(4)]
    assert answers == [401, 401, 401, 429]
    assert locked.client.get("/health", auth=BASIC).status_code == 429
    assert locked.client.get("/health", auth=BASIC, environ_base={"REMOTE_ADDR": "192.0.2.7"}).status_code == 200


def test_programs_keep_basic_auth_and_take_no_session(locked: Site) -> None:
    assert locked.client.get("/tator/api/jobs", auth=BASIC).status_code == 200
    assert locked.client.get("/tator/now", auth=BASIC).status_code == 200
    sign_in(locked.client, username="tator", password=PASSWORD, **{"as": "administrator"})
    assert locked.client.get("/tator/now").status_code == 200
    for path in ("/tator/api/jobs", "/health", "/metrics"):
        refused = locked.client.get(path)
        assert refused.status_code == 401 and "Basic" in refused.headers["WWW-Authenticate"] and refused.is_json
    assert locked.client.get("/strip").status_code == 403, "the strip has a key of its own"


def test_forms_without_their_token_change_nothing(locked: Site) -> None:
    assert locked.client.post("/tator/change").status_code == 401, "signed out first, whatever the form has"
    sign_in(locked.client, token=TOKEN)
    for data in ({}, {"csrf_token": "made up"}):
        refused = locked.client.post("/tator/change", data=data)
        assert refused.status_code == 400 and "nothing was changed" in refused.text and "<h1>" in refused.text
    good = {"csrf_token": form_token(locked.client, "/tator/now")}
    assert locked.client.post("/tator/change", data=good).text == "changed"
    assert locked.client.post("/tator/sign-in", data={"token": TOKEN}).status_code == 400, "sign-in is guarded too"


def test_a_signed_out_stream_is_told_so(locked: Site) -> None:
    answer = locked.client.get("/tator/now/live", headers={"Accept": "text/event-stream"})
    assert answer.mimetype == "text/event-stream" and "event: signed-out" in answer.text


def test_an_open_stream_ends_with_the_session(locked: Site, members: Members, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tator_ml.web.dashboard.live.EVERY_SECONDS", 0.01)
    monkeypatch.setattr("tator_ml.web.sessions.FRESH_SECONDS", 0.0)
    sign_in(locked.client, token=TOKEN)
    stream = locked.client.get("/tator/now/live", headers={"Accept": "text/event-stream"})
    parts = iter(stream.response)
    assert b"retry" in next(parts) and b"lanes" in next(parts)
    members.projects[TOKEN] = frozenset({1})
    assert list(parts) == [], "it ends, and the browser asks anew with what may be seen now"


@pytest.mark.parametrize(
    ("given", "goal"),
    [
        ("/tator/jobs?project=3&page=2", "/tator/jobs?project=3&page=2"),
        ("https://elsewhere.example/", "/tator/"),
        ("//elsewhere.example/tator/", "/tator/"),
        ("/\\elsewhere.example", "/tator/"),
        ("/tator/\\@elsewhere.example", "/tator/"),
        ("/tator/now\nSet-Cookie: a=b", "/tator/"),
        ("javascript:alert(1)", "/tator/"),
        ("/tator/sign-out", "/tator/"),
        ("/predict", "/tator/"),
        ("", "/tator/"),
        (None, "/tator/"),
    ],
)
def test_nobody_is_sent_elsewhere(site: Site, given: str | None, goal: str) -> None:
    with site.client.application.test_request_context("/tator/sign-in"):
        assert within(given) == goal


def test_unknown_addresses_are_pages_for_people_and_json_for_programs(site: Site) -> None:
    page = site.client.get("/tator/nothing-here")
    assert page.status_code == 404 and "<h1>" in page.text and 'href="/tator/now"' in page.text
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    for path in ("/tator/api/nothing-here", "/nothing-here"):
        assert site.client.get(path).get_json()["error"]
    assert site.client.post("/tator/now").status_code == 405


def test_without_a_password_only_loopback_names_reach_the_pages(site: Site) -> None:
    for name in ("localhost:9090", "127.0.0.1:9090", "[::1]:9090", "LOCALHOST"):
        assert site.client.get("/tator/now", headers={"Host": name}).status_code == 200
    for name in ("rebound.example:9090", "127.0.0.1.rebound.example", "localhost.rebound.example"):
        refused = site.client.get("/tator/now", headers={"Host": name})
        assert refused.status_code == 403 and "TATOR_PASSWORD" in refused.text
        assert site.client.get("/tator/api/jobs", headers={"Host": name}).is_json
        assert site.client.put("/tator/api/projects/1", json={}, headers={"Host": name}).status_code == 403
        assert site.client.get("/health", headers={"Host": name}).status_code == 200, "Label Studio may"
    assert site.client.get("/tator/sign-in").headers["Location"] == "/tator/", "there is nothing to sign in to"


def test_forwarded_headers_count_only_where_a_setting_says_so(settings: Settings, members: Members) -> None:
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "tator.example", "X-Forwarded-For": "192.0.2.7"}
    for behind_proxy in (False, True):
        change = {"password": SecretStr(PASSWORD), "behind_proxy": behind_proxy}
        made = build_site(settings.model_copy(update=change))
        try:
            page = made.client.get("/tator/sign-in", headers=forwarded)
            cookie = page.headers["Set-Cookie"]
            assert ("Secure" in cookie) is behind_proxy and "HttpOnly" in cookie and "Path=/tator" in cookie
            assert ("not encrypted" in page.text) is False
            plain = made.client.get("/tator/sign-in", headers={"X-Forwarded-For": "192.0.2.7"})
            assert ("not encrypted" in plain.text) is behind_proxy
        finally:
            close_site(made)
