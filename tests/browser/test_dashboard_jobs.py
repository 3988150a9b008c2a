"""The Jobs pages in a real browser: a job is watched with its log and curve, cancelled, and asked for once more."""

from __future__ import annotations

import os
from typing import Any

import pytest

from demo.stack import DemoStack
from tator_ml.jobs import cancel, connect_redis, start
from tator_ml.jobs.fence import Fence
from tator_ml.launch import launch
from tator_sdk.requests import HeadTraining, Prelabel

from ..jobs.conftest import until
from .dashboard import check_accessible, check_fits_a_phone, opened, picture

pytestmark = [pytest.mark.browser, pytest.mark.studio, pytest.mark.timeout(400)]


def test_a_job_is_watched_and_cancelled(page: Any, stack: DemoStack) -> None:
    settings = stack.settings
    (settings.home / "go").unlink(missing_ok=True)
    job = start(settings, "test", {}, title="a test that waits", function="tests.jobs.work.wait")
    try:
        watch_and_cancel(page, stack, job.id)
    finally:
        cancel(settings, job.id)  # or it would keep the worker


def watch_and_cancel(page: Any, stack: DemoStack, job_id: str) -> None:
    settings = stack.settings
    with opened(page, f"{settings.backend_url}/tator/jobs") as tab, connect_redis(settings) as connection:
        tab.click(f"#job-{job_id}")
        tab.wait_for_selector("#state .badge.warn")  # a worker took it meanwhile, and nobody reloads
        fence = Fence(connection, job_id, 1)
        fence.log([f"step {number}: loss {1 / number:.4f}" for number in range(1, 60)])
        fence.points([f'{{"step": {number}, "loss": {1 / number}}}' for number in range(1, 60)])
        tab.wait_for_selector("#curves .js-plotly-plot .scatterlayer .js-line")
        until(lambda: tab.evaluate("document.getElementById('log').textContent.includes('step 59')"))
        assert tab.evaluate("(() => { const log = document.getElementById('log'); "
                            "return log.scrollHeight - log.scrollTop - log.clientHeight < 40; })()")  # fmt: skip
        tab.click("#log-pause")
        fence.log(["said while paused"])
        until(lambda: tab.evaluate("document.getElementById('log-end').textContent === '60'"))
        assert "said while paused" not in tab.inner_text("#log")
        tab.click("#log-pause")
        until(lambda: tab.evaluate("document.getElementById('log').textContent.includes('said while paused')"))
        tab.click("#curves summary")
        check_accessible(tab)
        check_fits_a_phone(tab)
        tab.on("dialog", lambda asked: asked.accept())
        tab.click("text=Cancel")
        tab.wait_for_selector("#state .badge:has-text('cancelled')")


def test_a_job_is_asked_for_once_more_with_another_prompt(page: Any, stack: DemoStack) -> None:
    (first,) = launch(stack.settings, Prelabel(project=stack.project, prompt="every star", dry_run=True))
    cancel(stack.settings, first.id)
    with opened(page, f"{stack.settings.backend_url}/tator/jobs/{first.id}") as tab:
        tab.wait_for_selector("text=Again with changes", timeout=120_000)
        tab.click("text=Again with changes")
        check_accessible(tab)
        check_fits_a_phone(tab)
        tab.fill("[name=prompt]", "every moon")
        tab.click("main form button:has-text('Start')")
        tab.wait_for_selector("#state")
        assert "every moon" in tab.inner_text("h1")
        again = tab.url.rpartition("/")[2]
        cancel(stack.settings, again)
        tab.wait_for_selector("#state >> text=Do it again", timeout=60_000)
        tab.goto(f"{stack.settings.backend_url}/tator/jobs?kind=prelabel")
        shown = tab.inner_text("table.jobs")
        assert first.id in shown and again in shown
        check_accessible(tab)
        check_fits_a_phone(tab)


@pytest.mark.skipif("TATOR_PICTURES" not in os.environ, reason="makes pictures for docs")
def test_pictures(page: Any, stack: DemoStack) -> None:
    (job,) = launch(stack.settings, HeadTraining(project=stack.project))
    with opened(page, f"{stack.settings.backend_url}/tator/jobs/{job.id}") as tab:
        tab.wait_for_selector("#state >> text=Do it again", timeout=120_000)
        tab.wait_for_timeout(1000)
        picture(tab, "dashboard-job")
        tab.goto(f"{stack.settings.backend_url}/tator/jobs")
        picture(tab, "dashboard-jobs")
