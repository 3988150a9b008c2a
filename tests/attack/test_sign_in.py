"""The sign-in: guessing, planted sessions, cookies, headers of pages, and names in headers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from tator_sdk.connect import strip_key
from tator_sdk.settings import Settings
from tests.dashboard.conftest import Site, build_site, close_site
from tests.dashboard.test_access import PASSWORD, TOKEN, Members, form_token, sign_in

GUESS = {"as": "administrator", "username": "tator", "password": "guess"}


def locked_site(settings: Settings, **more: object) -> Site:
    made = build_site(settings.model_copy(update={"password": SecretStr(PASSWORD), **more}))
    made.client.application.config["WTF_CSRF_ENABLED"] = True
    return made


@pytest.fixture
def locked(settings: Settings, members: Members) -> Iterator[Site]:
    made = locked_site(settings)
    yield made
    close_site(made)


def test_a_made_up_address_does_not_reset_the_count(locked: Site) -> None:
    """Without TATOR_BEHIND_PROXY nobody is believed who says that he forwards."""
    data = {"csrf_token": form_token(locked.client), **GUESS}
    answers = []
    for number in range(12):
        headers = {"X-Forwarded-For": f"198.51.100.{number}", "Forwarded": f"for=198.51.100.{number}"}
        answers.append(locked.client.post("/tator/sign-in", data=data, headers=headers).status_code)
    assert answers == [401] * 10 + [429] * 2


def test_behind_a_proxy_only_its_own_word_counts(settings: Settings, members: Members) -> None:
    """Of a chain the last address is the proxy's; what stands before it, the sender wrote."""
    made = locked_site(settings, behind_proxy=True)
    try:
        data = {"csrf_token": form_token(made.client), **GUESS}
        answers = []
        for number in range(12):
            headers = {"X-Forwarded-For": f"198.51.100.{number}, 192.0.2.1"}
            answers.append(made.client.post("/tator/sign-in", data=data, headers=headers).status_code)
        assert answers == [401] * 10 + [429] * 2
    finally:
        close_site(made)


@pytest.mark.attack
def test_guesses_from_many_addresses_are_counted_together(locked: Site) -> None:
    data = {"csrf_token": form_token(locked.client), **GUESS}
    answers = [
        locked.client.post("/tator/sign-in", data=data, environ_base={"REMOTE_ADDR": f"192.0.2.{number}"}).status_code
        for number in range(125)
    ]
    assert answers.count(429) == 5
    assert locked.client.get("/health", auth=("tator", PASSWORD)).status_code == 200, "Label Studio goes on working"


def test_a_planted_session_is_worth_nothing(locked: Site) -> None:
    before = form_token(locked.client)
    planted = locked.client.get_cookie("tator_9090", path="/tator")
    assert planted is not None
    sign_in(locked.client, token=TOKEN)
    after = locked.client.get_cookie("tator_9090", path="/tator")
    assert after is not None and after.value != planted.value
    victim = locked.client.application.test_client()
    victim.set_cookie("tator_9090", planted.value, path="/tator")
    assert victim.get("/tator/now").status_code == 302
    assert locked.client.post("/tator/now/budget", data={"csrf_token": before}).status_code == 400
    victim.set_cookie("tator_9090", after.value[:-3] + "AAA", path="/tator")
    assert victim.get("/tator/now").status_code == 302, "a changed signature"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_cookies_are_kept_from_scripts_other_sites_and_open_lines(locked: Site, scheme: str) -> None:
    page = locked.client.get("/tator/sign-in", base_url=f"{scheme}://localhost")
    (cookie,) = page.headers.getlist("Set-Cookie")
    assert {"HttpOnly", "SameSite=Lax", "Path=/tator"} <= set(cookie.split("; "))
    assert ("Secure" in cookie.split("; ")) is (scheme == "https")


def test_pages_can_be_put_into_no_frame_and_load_nothing_foreign(site: Site) -> None:
    for where in ("/tator/now", "/tator/jobs", "/tator/data", "/tator/train", "/tator/quality", "/tator/models",
                  "/tator/team", "/tator/settings", "/tator/sign-in", "/tator/none"):  # fmt: skip
        headers = site.client.get(where, follow_redirects=True).headers
        policy = headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy and "default-src 'self'" in policy and "form-action 'self'" in policy
        assert "script-src" not in policy and "unsafe-eval" not in policy, "scripts come from our own files only"
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "same-origin"
        assert "no-store" in headers["Cache-Control"]


def test_what_shows_is_framed_where_it_must_be_and_nothing_else_is(site: Site) -> None:
    strip = site.client.get("/strip?project=1").headers
    assert (
        "default-src 'none'" in strip["Content-Security-Policy"]
        and "connect-src 'self'" in strip["Content-Security-Policy"]
    )
    assert strip["Referrer-Policy"] == "no-referrer", "its key stands in its address"
    for where in ("/health", "/versions", "/metrics", "/tator/api/status", "/strip/state?project=1"):
        headers = site.client.get(where).headers
        assert headers["X-Content-Type-Options"] == "nosniff", where
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"], where


def test_host_and_forwarded_names_lead_nobody_elsewhere(locked: Site) -> None:
    headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
    answer = locked.client.get("/tator/now", headers=headers)
    assert answer.headers["Location"].startswith("/tator/"), "addresses are relative"
    page = locked.client.get("/tator/sign-in", headers=headers)
    assert "evil.example" not in page.text


@pytest.mark.parametrize("evil", ["a\r\nSet-Cookie: x=1", "a\nX: y", "a%0d%0aSet-Cookie:%20x=1", '"; x="', "é\u2028"])
def test_nothing_typed_becomes_a_header(site: Site, evil: str) -> None:
    site.job(title=evil)
    for where, query in (
        ("/tator/", {"project": evil}), ("/tator/sign-in", {"next": f"/tator/now?{evil}"}),
        ("/tator/jobs", {"kind": evil}),
        ("/tator/quality/figures.csv", {"label": evil}), ("/tator/train", {"dataset": evil}),
    ):  # fmt: skip
        answer = site.client.get(where, query_string=query)
        assert answer.status_code < 500 and "x" not in {name.lower() for name, _ in answer.headers}
        assert all("\n" not in value and "\r" not in value for _, value in answer.headers)
        assert "x=1" not in answer.headers.get("Set-Cookie", "")


def test_the_strips_key_opens_one_project_and_nothing_else(locked: Site) -> None:
    key = strip_key(locked.settings, 1)
    client = locked.client.application.test_client()
    assert client.get(f"/strip/state?project=1&key={key}").status_code == 200
    for project, given in ((2, key), (1, key[:-1]), (1, ""), (1, key.upper() + "é"), ("", key), ("1e0", key)):
        assert client.get("/strip/state", query_string={"project": project, "key": given}).status_code == 403
    for where in ("/tator/now", "/tator/api/status", "/health"):
        assert client.get(f"{where}?project=1&key={key}").status_code in {302, 401}
    choices = f"/strip/choices?project=1&key={key}"
    for body in ({"head": "x"}, {"segmenter": "x"}, {"words": {"text": "x"}}, {"train_after": 1}, {"output": "rm"}, []):
        assert client.post(choices, json=body).status_code == 400, "it turns switches and forgets words"
    assert client.post(choices, data='{"refine": false}', content_type="text/plain").status_code == 400
    assert client.post(choices, json={"refine": False}).status_code == 200


def test_the_password_is_not_cheaply_guessed_from_the_strips_key() -> None:
    """Every annotator can read the key in the project's configuration, and try words against it at home."""
    began = time.process_time()
    for number in range(10):
        strip_key(Settings(password=SecretStr(f"word-{number}")), 1)
    assert time.process_time() - began > 10 * 0.005


def test_comparisons_of_secrets_take_as_long_whatever_is_wrong() -> None:
    """Read in the source, since a timing test would be noise: every one is ``hmac.compare_digest``."""
    web = Path(__file__).parents[2] / "tator_ml" / "web"
    for name, count in (("guard.py", 2), ("strip.py", 1)):
        assert (web / name).read_text().count("compare_digest(") == count
