"""What changes by itself on open pages, in a real browser over made-up answers: no Tator and no Label Studio runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

SCRIPT = Path(__file__).parents[2] / "tator_ml" / "web" / "dashboard" / "static" / "dashboard.js"
PAGE = '<body data-live="/live"><main id="now">as it was</main><script src="/dashboard.js"></script></body>'
NEWS = 'retry: 600000\n\ndata: {"now": "as it is"}\n\n'


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    opened = browser.new_page()
    yield opened
    opened.context.close()


def test_a_page_that_was_refused_asks_again(tab: Any) -> None:
    refusals, asked = [503, 400], list[int]()

    def answer(route: Any) -> None:
        asked.append(len(asked))
        if refusals:
            route.fulfill(status=refusals.pop(0), body="busy")
        else:
            route.fulfill(status=200, content_type="text/event-stream", body=NEWS)

    tab.clock.install()
    tab.route("http://127.0.0.1:9/", lambda route: route.fulfill(content_type="text/html", body=PAGE))
    tab.route(
        "http://127.0.0.1:9/dashboard.js",
        lambda route: route.fulfill(content_type="text/javascript", body=SCRIPT.read_text()),
    )
    tab.route("http://127.0.0.1:9/live", answer)
    tab.goto("http://127.0.0.1:9/")
    for times in (1, 2):
        tab.wait_for_selector("body.stale", state="attached")
        tab.wait_for_timeout(300)  # the browser's own second try would have come
        assert len(asked) == times and tab.inner_text("#now") == "as it was"
        tab.clock.fast_forward(15_000)
    tab.wait_for_function("document.getElementById('now').textContent === 'as it is'", polling=100)
    assert len(asked) == 3
