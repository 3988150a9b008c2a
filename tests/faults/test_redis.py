"""Redis is full, or comes back empty: real servers, real workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tator_ml.jobs import JobError, connect_redis
from tator_ml.jobs.connection import living_workers
from tests.jobs.conftest import Jobs, serving_redis, until


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    """Jobs over a Redis of the test's own, which it may break."""
    from tator_sdk.settings import Settings

    monkeypatch.setenv("TATOR_HOME", str(tmp_path_factory.mktemp("r")))  # a socket's path must be short
    settings = Settings()
    with serving_redis(settings), connect_redis(settings) as connection:
        running = Jobs(settings, connection)
        try:
            yield running
        finally:
            for worker in running.workers:
                worker.kill()
                worker.wait(10)


def fill(jobs: Jobs) -> None:
    jobs.connection.config_set("maxmemory-policy", "noeviction")
    jobs.connection.config_set("maxmemory", "1")


def make_room(jobs: Jobs) -> None:
    jobs.connection.config_set("maxmemory", "0")


@pytest.mark.faults
def test_a_full_redis_holds_jobs_up_and_ends_none(own: Jobs) -> None:
    worker = own.worker()
    running = own.start("wait", {"n": 1})
    until(lambda: own.diary("begin"))
    fill(own)
    with pytest.raises(JobError, match=r"Redis is full.*maxmemory.*Jobs that run wait"):
        own.start("count", {"steps": 1})
    own.go()
    until(lambda: (own.settings.home / "worker.log").read_text().count("takes no writes") >= 2, 15)  # job and worker
    time.sleep(1)
    assert worker.poll() is None and own.records.get(running.id).status == "running"
    make_room(own)
    record = own.ends(running.id)
    assert (record.status, record.attempt) == ("done", 1), own.records.log_lines(running.id)
    again = own.start("count", {"steps": 1})
    assert own.ends(again.id).status == "done", "the worker is there, too"


@pytest.mark.faults
def test_a_worker_may_start_while_redis_is_full(own: Jobs) -> None:
    waiting = own.start("count", {"steps": 1})
    fill(own)
    worker = own.worker()
    log: Path = own.settings.home / "worker.log"
    until(lambda: "takes no writes" in log.read_text(), 20)
    time.sleep(0.5)
    assert worker.poll() is None
    make_room(own)
    assert own.ends(waiting.id).status == "done"


def test_an_emptied_redis_has_its_workers_again(own: Jobs) -> None:
    worker = own.worker(
        "import tator_ml.jobs.worker as worker; from tator_sdk.settings import Settings;"
        "worker.MAINTENANCE_SECONDS = 1; worker.run_worker(Settings())"
    )
    until(lambda: living_workers(own.connection) == 1)
    own.connection.flushall()
    until(lambda: living_workers(own.connection) == 1)
    made = own.start("count", {"steps": 1})
    assert own.ends(made.id).status == "done" and worker.poll() is None
