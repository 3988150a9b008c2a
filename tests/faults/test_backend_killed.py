"""Engine and web process are killed with -9 while a click waits: the next click is answered, by the same supervisor."""

from __future__ import annotations

import base64
import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tator_ml.engine.client import EngineClient
from tator_ml.engine.messages import EngineError
from tator_ml.learning.stores import image_store
from tator_ml.running.processes import Part, Supervisor, free_port
from tator_ml.up import start_back, tator
from tator_sdk.settings import Settings
from tests.jobs.conftest import until
from tests.wire.conftest import scene_bytes

pytestmark = pytest.mark.faults

Body = dict[str, Any]


class Site:
    """Engine and web process with the starter models, watched as `tator up` does."""

    def __init__(self, settings: Settings, parts: Supervisor, click: Body) -> None:
        self.settings, self.parts, self.body = settings, parts, click
        self.client = httpx.Client(base_url=settings.backend_url, timeout=30, trust_env=False)
        self.stopped = threading.Event()
        self.watching = threading.Thread(target=self._watch, daemon=True)
        self.watching.start()

    def _watch(self) -> None:
        while not self.stopped.is_set():
            self.parts.revive()
            time.sleep(0.1)

    def pid(self, part: str) -> int:
        return int(json.loads((self.settings.home / "run" / f"{part}.json").read_text())["pid"])

    def click(self) -> Body:
        answer = self.client.post("/predict", json=self.body)
        assert answer.status_code == 200
        return dict(answer.json()["results"][0])

    def answered(self) -> bool:
        try:
            return bool(self.click()["result"])
        except httpx.HTTPError:
            return False

    def said(self) -> str:
        return str(self.client.get("/tator/strip/state", params={"project": 1}).text)

    def clicking(self) -> tuple[threading.Thread, list[Any]]:
        """A click in a thread of its own, and what came of it."""
        came: list[Any] = []

        def click() -> None:
            try:
                came.append(self.click())
            except httpx.HTTPError as error:
                came.append(error)

        thread = threading.Thread(target=click)
        thread.start()
        return thread, came


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("b")
    body = json.loads((Path(__file__).parents[1] / "payloads" / "predict_interactive_keypoint_ui.json").read_text())[
        "body"
    ]
    body["label_config"] = body["label_config"].replace('name="kp"', 'name="kp" model_output="box"')
    body["params"]["context"]["result"][0]["value"].update(x=40.0, y=40.0)
    body["tasks"][0]["data"]["image"] = f"data:image/png;base64,{base64.b64encode(scene_bytes()).decode()}"
    settings = Settings(home=home, port=free_port(19390), device="cpu", torch_threads=1, redis_url=None)
    with Supervisor(home, print) as parts:
        start_back(settings, parts)
        web = Part("web", tator("serve"), lambda: _up(settings), 60, environment=settings.environment())
        parts.start(web)
        one = Site(settings, parts, body)
        try:
            yield one
        finally:
            one.stopped.set()
            one.watching.join()
            one.client.close()


def _up(settings: Settings) -> bool:
    try:
        return httpx.get(f"{settings.backend_url}/health", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_the_engine_is_killed_during_a_click(site: Site) -> None:
    until(site.answered, 20)
    before = site.pid("engine")
    os.kill(before, signal.SIGSTOP)  # so that the click is surely on its way
    thread, came = site.clicking()
    time.sleep(0.5)
    begun = time.monotonic()
    os.kill(before, signal.SIGKILL)
    thread.join(60)
    assert came and isinstance(came[0], dict), "the editor got an answer, if an empty one"
    assert time.monotonic() - begun < 60
    until(site.answered, 60)
    assert site.pid("engine") != before


def test_an_engine_that_is_stuck_holds_no_editor_up(site: Site) -> None:
    until(site.answered, 20)
    patient = Settings.model_validate({**site.settings.model_dump(), "answer_timeout_seconds": 1.0})
    client = EngineClient(patient, image_store(patient))
    assert client.status().ready
    with stopped(site.pid("engine")):
        begun = time.monotonic()
        with pytest.raises(EngineError, match="has not answered for 6 s; if that goes on, end its process"):
            client.status()
        assert time.monotonic() - begun < 8
        with pytest.raises(EngineError, match="does not answer; if that goes on, end its process"):
            client.status()
        assert time.monotonic() - begun < 20
        assert site.client.get("/health").elapsed.total_seconds() < 1
    assert until(client.status, 10).ready
    client.close()


@pytest.mark.parametrize("whole", [True, False], ids=["with its children", "alone"])
def test_the_web_process_is_killed_during_a_click(site: Site, whole: bool) -> None:
    until(site.answered, 20)
    before = site.pid("web")
    with stopped(site.pid("engine")):
        thread, came = site.clicking()
        time.sleep(0.5)
        (os.killpg if whole else os.kill)(before, signal.SIGKILL)
        if whole:
            thread.join(20)
            assert isinstance(came[0], httpx.HTTPError), "Label Studio says that the backend is away; nothing hangs"
    thread.join(20)
    assert came, "a child that lives on answers what it has begun"
    until(lambda: site.pid("web") != before and site.answered(), 30)
    record = sqlite3.connect(site.settings.home / "suggestions.sqlite")
    assert record.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert not list(site.settings.home.glob("*.damaged-*"))
