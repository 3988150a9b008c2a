"""The Now page in a real browser, over a real engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from demo.pictures import classes
from demo.stack import DemoStack
from label_config.build import build
from tator_sdk.studio import open_studio

from ..jobs.conftest import until
from .dashboard import check_accessible, check_fits_a_phone, opened, picture

PICTURES = "TATOR_PICTURES" in os.environ  # tests see no TATOR_ variables
pytestmark = [pytest.mark.browser, pytest.mark.studio, pytest.mark.timeout(400)]


def label(stack: DemoStack, count: int, clicked: dict[str, Any]) -> None:
    """Open some tasks as Label Studio does, which makes their pictures warm, and click into each."""
    studio: Any = open_studio(stack.settings)
    tasks = [one for _, one in zip(range(count), studio.tasks.list(project=stack.project), strict=False)]
    opened = {"label_config": build("boxes", classes(), None), "params": {"context": None}}
    for asked in (opened, clicked):
        for one in tasks:
            task = {"id": one.id, "data": one.data, "annotations": [], "drafts": []}
            body = {**asked, "tasks": [task], "project": f"{stack.project}.1700000000"}
            httpx.post(f"{stack.settings.backend_url}/predict", json=body, timeout=60).raise_for_status()


@pytest.fixture
def budget(stack: DemoStack) -> Iterator[None]:
    """Whatever a test makes of the budget, others have the stack's own."""
    yield
    restore = {"budget_bytes": stack.settings.warm_bytes}
    httpx.put(f"{stack.settings.backend_url}/tator/api/budget", json=restore, timeout=30).raise_for_status()


@pytest.mark.usefixtures("budget")
def test_it_shows_what_happens_and_takes_a_budget_from_the_keyboard(page: Any, stack: DemoStack, payload: Any) -> None:
    label(stack, 6, payload("predict_interactive_keypoint_ui")["body"])
    with opened(page, f"{stack.settings.backend_url}/tator/now") as tab:
        tab.wait_for_selector("#warm img")  # comes live
        until(lambda: tab.evaluate("document.querySelector('#warm img').naturalWidth > 0"))
        until(lambda: {"Clicks", "Preloads"} <= set(tab.inner_text("#answers").split()))
        assert "ready" in tab.inner_text("#state")
        if PICTURES:
            picture(tab, "dashboard-now")
        check_accessible(tab)
        check_fits_a_phone(tab)
        before = tab.inner_text("#budget-means")
        tab.focus("#budget")
        for _ in range(3):
            tab.keyboard.press("ArrowRight")
        chosen = tab.inner_text("#budget-means")
        assert chosen != before and "pictures" in chosen
        tab.keyboard.press("Tab")
        tab.keyboard.press("Enter")
        tab.wait_for_selector(".flash.good")
        assert chosen.partition(",")[0] in tab.inner_text(".flash.good")
