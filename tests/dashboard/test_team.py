"""The Team page without a Label Studio: who may reach it, what is typed, and what is known when nobody answers."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from flask import g

from tator_ml.web.access import Visitor
from tator_ml.web.dashboard.recent import Recent
from tator_ml.web.dashboard.team import _most, _shares
from tator_sdk.errors import TatorError
from tator_sdk.packages import Share

from .conftest import Site


def test_it_opens_at_once_where_label_studio_does_not_answer(site: Site) -> None:
    begun = time.perf_counter()
    page = site.page("/tator/team?project=3")
    assert time.perf_counter() - begun < 5 and "Hand out tasks" in page
    deadline = time.monotonic() + 20
    while "cannot be reached" not in page and time.monotonic() < deadline:
        time.sleep(0.1)
        page = site.page("/tator/team?project=3")
    assert "cannot be reached" in page
    refused = site.client.post("/tator/team/plan?project=3", data={"people": "ann"})
    assert refused.status_code == 400 and "cannot be reached" in refused.text
    assert site.client.post("/tator/team/plan", data={"people": "ann"}).status_code == 404


@pytest.mark.parametrize("way", ["plan", "hand-out", "take-back", "live", ""])
def test_nothing_of_a_project_is_shown_to_others(site: Site, way: str) -> None:
    def be_ann() -> None:
        g.visitor = Visitor("ann@example.com", frozenset({1}), signed_in=True)

    site.client.application.before_request(be_ann)
    ask: Any = site.client.get if way in {"live", ""} else site.client.post
    refused = ask(f"/tator/team/{way}?project=3" if way else "/tator/team?project=3")
    assert refused.status_code == 403 and "Project 3" in refused.text


def test_shares_as_people_type_them() -> None:
    typed = "ann@example.com\n  Bob the 2nd : 3 \n\ncas;0\n"
    assert _shares(typed) == [Share("ann@example.com"), Share("Bob the 2nd", 3), Share("cas", 0)]
    for wrong in ("", "x" * 81, "\n".join(map(str, range(201)))):
        with pytest.raises(TatorError):
            _shares(wrong)
    assert _most(" ") is None and _most("12") == 12
    for wrong in ("0", "-1", "a", "1.5", "\N{SUPERSCRIPT TWO}"):
        with pytest.raises(TatorError):
            _most(wrong)


def test_what_is_old_is_shown_while_it_is_made_anew() -> None:
    go, made = threading.Event(), []

    def make(key: str) -> int:
        made.append(key)
        go.wait(10)
        return len(made)

    recent = Recent(make, 0.0)
    assert recent.get("a", 0.01) is None
    assert recent.get("a") is None and made == ["a"], "it is made once, however many ask"
    go.set()
    assert recent.get("a", 10) == 1
    time.sleep(0.01)
    go.clear()
    assert recent.get("a", 10) == 1, "nobody waits for a newer one"
    go.set()


def test_the_strip_leads_to_the_dashboard_from_old_configurations_too(site: Site) -> None:
    assert 'href="tator/?project=3" target="_blank" rel="noopener"' in site.page("/strip?project=3")
    assert 'href="tator/" target="_blank" rel="noopener"' in site.page("/strip")
    assert site.client.get("/tator/?project=3").headers["Location"] == "/tator/now?project=3"
