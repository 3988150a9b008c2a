"""Looks in processes of their own: one at a time for each thing, and not over and over where they fail."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from tator_ml.web.dashboard.data.errands import Errands
from tator_sdk.settings import Settings
from tests.jobs.conftest import until

from .conftest import Site
from .sets import registered


class Processes:
    """Looks as they are begun; each ends when the test says so."""

    def __init__(self, status: int = 0) -> None:
        self.begun: list[tuple[str, ...]] = []
        self.may_end = threading.Semaphore(0)
        self.status = status
        self.at_once = self.most_at_once = 0

    def run(self, command: list[str], **_: Any) -> SimpleNamespace:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.begun.append(tuple(command[3:]))
        self.may_end.acquire(timeout=5)
        self.at_once -= 1
        return SimpleNamespace(returncode=self.status, stderr="it failed")


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    made = Processes()
    monkeypatch.setattr("tator_ml.web.dashboard.data.errands.subprocess.run", made.run)
    return made


def test_two_looks_never_write_to_one_folder(processes: Processes, settings: Settings) -> None:
    errands = Errands(settings)
    errands.send("upload", "/a", "1")
    until(lambda: processes.begun == [("upload", "/a", "1")])
    errands.send("upload", "/a", "1")  # it goes on
    errands.send("upload", "/a", "2")
    assert errands.runs("upload", "/a", "2") and not errands.runs("upload", "/a", "1")
    processes.may_end.release(2)
    until(lambda: not errands.runs("upload", "/a", "2"))
    assert processes.begun == [("upload", "/a", "1"), ("upload", "/a", "2")] and processes.most_at_once == 1


def test_a_look_that_fails_is_not_begun_each_second(processes: Processes, site: Site) -> None:
    processes.status = 1
    cars = registered(site, "cars", project=1)
    processes.may_end.release(100)
    address = f"/tator/data/set/{cars.id}"
    until(lambda: "could not be drawn" in site.page(address))
    for _ in range(5):
        site.page(address)
    assert len(processes.begun) == 1
