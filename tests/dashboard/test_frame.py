"""What surrounds every page, and the streams that keep it up to date."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

import pytest
from flask import g

from tator_ml.web.access import Visitor
from tator_ml.web.dashboard import frame, words
from tator_ml.web.dashboard.live import Live

from .conftest import Site

PAGES = [module.PAGE.name for module in frame.PAGES]


@pytest.mark.parametrize("name", PAGES)
def test_each_page_opens_and_is_marked_in_the_menu(site: Site, name: str) -> None:
    answer = site.client.get(f"/tator/{name}")
    assert answer.status_code == 200
    assert f'href="/tator/{name}" aria-current="page"' in answer.text
    assert (
        "script-src" in answer.headers["Content-Security-Policy"]
        or "default-src 'self'" in answer.headers["Content-Security-Policy"]
    )
    assert "<script>" not in answer.text and "onclick" not in answer.text


def test_plotly_comes_from_its_wheel(site: Site) -> None:
    answer = site.client.get("/tator/plotly.js")
    assert answer.status_code == 200 and "max-age" in answer.headers["Cache-Control"]
    assert b"plotly.js v" in answer.data[:300]


def test_a_stream_tells_what_is_new_and_no_more(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tator_ml.web.dashboard.live.EVERY_SECONDS", 0.02)
    said: list[dict[str, str]] = [
        {"a": "1", "b": "1"},
        {"a": "1", "b": "2"},
        {"a": "1", "b": "2"},
        {"a": "3", "b": "2"},
    ]
    turns = iter([*said, {}])
    live = Live()
    with site.client.application.test_request_context("/tator/now"):
        answer = live.stream("topic", lambda: next(turns))
        assert live.streams == 1
        events = [one for one in b"".join(answer.response).decode().split("\n\n") if one]  # type: ignore[arg-type]
        answer.close()
    assert live.streams == 0
    told: list[Any] = [json.loads(one.removeprefix("data: ")) for one in events if one.startswith("data")]
    assert told == [{"a": "1", "b": "1"}, {"b": "2"}, {"a": "3"}] and events[-1].startswith("event: over")


def test_what_many_look_at_is_made_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    live = Live()
    with site.client.application.test_request_context("/tator/now"):
        streams = [live.stream("topic", lambda: looks.append(1) or {"a": "1"}) for _ in range(20)]
        for one in streams:
            parts = iter(one.response)  # type: ignore[arg-type]
            assert next(parts).startswith(b"retry") and next(parts) == b'data: {"a": "1"}\n\n'  # type: ignore[union-attr]
        assert len(looks) == 1 and live.streams == 20
        for one in streams:
            one.close()
    assert live.streams == 0


def test_what_many_look_at_has_nobody_s_token(site: Site) -> None:
    job = site.job("clip")
    page = site.page(f"/tator/jobs/{job.id}")
    own = re.findall(r'name="csrf_token" value="([^"]*)"', page)
    assert own and all(own) and own[0] == re.findall(r'name="csrf-token" content="([^"]+)"', page)[0]
    parts = iter(site.client.get(f"/tator/jobs/{job.id}/live", buffered=False).response)
    assert next(parts).startswith(b"retry")  # type: ignore[arg-type, union-attr]
    told = next(parts).decode()  # type: ignore[union-attr]
    assert 'name=\\"csrf_token\\" value=\\"\\"' in told and own[0] not in told


def test_too_many_streams_are_refused(site: Site) -> None:
    live = Live(most_streams=1)
    with site.client.application.test_request_context("/tator/now"):
        live.stream("topic", lambda: {"a": "1"})
        assert live.stream("topic", lambda: {"a": "1"}).status_code == 503


@pytest.mark.parametrize(
    ("given", "said"),
    [(512, "512 B"), (1536, "1.5 kB"), (2_500_000, "2.5 MB"), (123_456_789, "123 MB"), (None, words.NOTHING)],
)
def test_bytes(given: float | None, said: str) -> None:
    assert words.as_bytes(given) == said


@pytest.mark.parametrize(
    ("given", "said"),
    [(0.25, "0.2 s"), (59.7, "1 min 0 s"), (75, "1 min 15 s"), (3700, "1 h 1 min"), (90_000, "1 d 1 h")],
)
def test_durations(given: float, said: str) -> None:
    assert words.as_duration(given) == said


def test_who_hangs_up_is_noticed_without_news(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    monkeypatch.setattr("tator_ml.web.dashboard.live.EVERY_SECONDS", 0.02)
    here, there = socket.socketpair()
    live = Live()
    with site.client.application.test_request_context("/tator/now", environ_overrides={"gunicorn.socket": here}):
        g.visitor = Visitor("anybody")
        told = iter(live.stream("topic", lambda: {"a": "1"}).response)  # type: ignore[arg-type]
        assert next(told).startswith(b"retry") and next(told) == b'data: {"a": "1"}\n\n'  # type: ignore[union-attr]
        there.close()
        assert next(told, None) is None
    here.close()
