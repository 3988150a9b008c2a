"""Jobs that ask for a device go to workers that have it."""

from __future__ import annotations

import pytest

from tator_ml.jobs import cancel
from tator_ml.jobs.connection import job_queue
from tator_ml.jobs.device import devices_of, queue_name, queue_names
from tator_ml.jobs.sweep import Sweeper

from .conftest import Jobs


@pytest.mark.parametrize(
    ("device", "name"),
    [(None, "tator"), ("auto", "tator"), ("cuda:1", "tator:cuda:1"), ("cpu", "tator:cpu"), ("x y", "tator")],
)
def test_names_of_queues(device: str | None, name: str) -> None:
    assert queue_name(device) == name


def test_what_workers_take() -> None:
    assert devices_of("auto", 2) == ("cuda:0", "cuda:1", "cuda", "cpu")
    assert queue_names("cuda:1") == ("tator:cuda:1", "tator:cuda", "tator:cpu", "tator")
    assert queue_names("cpu") == ("tator:cpu", "tator")


def test_a_job_waits_for_its_device_and_is_swept_and_cancelled_there(jobs: Jobs) -> None:
    waiting = jobs.start("count", {"steps": 1, "device": "cuda:7"})
    assert waiting.what == "waiting for a worker of cuda:7"
    assert job_queue(jobs.connection).count == 0 and job_queue(jobs.connection, "tator:cuda:7").count == 1
    times = iter([0.0, 100.0, 200.0, 300.0])
    sweeper = Sweeper(jobs.connection, lambda: next(times))
    assert sweeper.sweep() == sweeper.sweep() == [], "it waits in its queue, nothing is lost"
    assert cancel(jobs.settings, waiting.id).status == "cancelled"
    assert job_queue(jobs.connection, "tator:cuda:7").count == 0


def test_only_a_worker_of_the_device_takes_it(jobs: Jobs) -> None:
    jobs.worker(TATOR_DEVICE="cuda:7")
    other = jobs.start("count", {"steps": 1, "device": "cuda:8"})
    mine = jobs.start("count", {"steps": 1, "device": "cuda:7"})
    common = jobs.start("count", {"steps": 1})
    assert jobs.ends(mine.id).status == jobs.ends(common.id).status == "done"
    assert jobs.records.get(other.id).status == "queued"
