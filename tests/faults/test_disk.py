"""The disk is full: clicks are answered or told, jobs end with a sentence or wait, and with room all goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tator_ml.jobs import connect_redis
from tator_sdk.settings import Settings
from tests.faults.disks import fill, small_disk
from tests.jobs.conftest import Jobs, serving_redis, until
from tests.wire.conftest import Body, PictureServer, Running, answers, click, fails, pictures, running, scene_bytes  # noqa: F401  fixtures


@pytest.fixture
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with small_disk(tmp_path_factory.mktemp("d"), 12) as place:
        yield place


@pytest.fixture
def settings(disk: Path, pictures: PictureServer) -> Settings:  # noqa: F811
    return Settings(home=disk, label_studio_url=pictures.url, label_studio_api_key="legacy")  # type: ignore[arg-type]


def test_a_click_is_answered_though_nothing_can_be_noted(
    running: Running,  # noqa: F811
    pictures: PictureServer,  # noqa: F811
    click: Body,  # noqa: F811
    disk: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers(running, click)
    task = click["tasks"][0]["id"]
    noted = len(running.services.suggestions.of_task(1, task))
    filler = fill(disk)
    for _ in range(40):  # SQLite's log has some room of its own
        answers(running, click)
        if "not on record" in caplog.text:
            break
    assert "not on record: database or disk is full" in caplog.text

    click["tasks"][0]["data"]["image"] = "/new"
    pictures.answers["/new"] = (200, scene_bytes(size_wh=(800, 600)) + bytes(2**20))
    fails(running, click, "The disk is full")
    assert not [path for path in (disk / "images").iterdir() if path.name.startswith(".")], "half a picture stays"
    assert running.client.get("/health").status_code == 200

    filler.unlink()
    running.services.notices.answered(1, "", True)
    answers(running, click)
    assert len(running.services.suggestions.of_task(1, task)) > noted


@pytest.mark.faults
def test_a_job_ends_with_a_sentence_and_redis_is_waited_for(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TATOR_HOME", str(disk))
    settings = Settings()
    with serving_redis(settings), connect_redis(settings) as connection:
        own = Jobs(settings, connection)
        try:
            _goes_through(own, disk)
        finally:
            for worker in own.workers:
                worker.kill()
                worker.wait(10)


def _goes_through(own: Jobs, disk: Path) -> None:
    own.worker()
    large: dict[str, Any] = {"bytes": 64 * 2**20}
    made = own.start("fill", large)
    record = own.ends(made.id)
    assert (record.status, record.attempt) == ("failed", 1)
    assert (
        record.error
        == f"The disk of its machine is full; make room, then `tator jobs retry {made.id}` starts it again."
    )
    (disk / "jobs" / made.id / "large").unlink()

    waiting = own.start("wait", {"n": 1})
    until(lambda: own.diary("begin"))
    filler = fill(disk)
    until(lambda: "MISCONF" in _refused(own), 20)  # Redis cannot write its log, so it takes nothing
    time.sleep(1.5)
    filler.unlink()
    own.go()
    record = own.ends(waiting.id, 60)
    assert (record.status, record.attempt) == ("done", 1), record.error


def _refused(own: Jobs) -> str:
    try:
        own.connection.set("probe", "x")
    except Exception as error:
        return str(error)
    return ""
