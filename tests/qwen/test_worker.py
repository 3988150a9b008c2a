"""A tuning that a real worker does, and whose processes are killed in the middle."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tator_ml.jobs import cancel, start
from tator_ml.vlm.registry import qwen_registry
from tator_sdk.qwen_request import QwenTraining
from tests.jobs.conftest import Jobs, until
from tests.qwen.material import FAST, yolo

pytestmark = pytest.mark.timeout(600)


def begin(jobs: Jobs, base: Path, folder: Path, **changes: object) -> tuple[str, dict[str, str]]:
    """Start a tuning; returns its id, and the environment of its workers."""
    request = QwenTraining.model_validate(
        {"dataset": str(folder), **FAST, "epochs": 8, "evaluate_every": 10, "compare_pictures": 1, **changes}
    )
    record = start(jobs.settings, "qwen", request.model_dump(mode="json"), title="tune")
    environment = {"QWEN_MODEL_NAME": str(base), "TATOR_QWEN_MODEL_NAME": str(base), "OMP_NUM_THREADS": "1"}
    return record.id, environment | {"TATOR_DEVICE": "cpu", "TATOR_OFFLINE": "true"}


def reaches(jobs: Jobs, job_id: str, step: int) -> None:
    def there() -> bool:
        record = jobs.records.get(job_id)
        assert not record.over, (record.error, jobs.records.log_lines(job_id))
        return record.what == "training" and record.done >= step

    until(there, 120)


@pytest.mark.faults
def test_a_worker_that_is_killed_leaves_the_rest_to_the_next(jobs: Jobs, base: Path, tmp_path: Path) -> None:
    job_id, environment = begin(jobs, base, yolo(tmp_path / "set"))
    worker = jobs.worker(**environment)
    reaches(jobs, job_id, 5)
    os.kill(worker.pid, signal.SIGKILL)  # its work-horse ends with it
    worker.wait(10)
    jobs.worker(**environment)
    until(lambda: jobs.records.get(job_id).attempt == 2, 240)  # how soon is measured elsewhere; imports are slow
    record = jobs.ends(job_id, 180)
    assert (record.status, record.attempt) == ("done", 2), record.error
    log = "\n".join(str(line) for line in jobs.records.log_lines(job_id))
    assert "going on from step 4" in log or "going on from step 6" in log, log
    (run,) = qwen_registry(jobs.settings).entries()[1:]
    assert record.result is not None and record.result["id"] == run.id and run.metrics is not None
    assert (
        [one["step"] for one in run.metrics["evaluations"]][-1] == run.metrics["steps"] == run.metrics["planned_steps"]
    )
    assert not list((jobs.settings.home / "jobs" / job_id).glob("check*"))


@pytest.mark.faults
def test_a_cancelled_one_ends_in_a_moment_and_leaves_no_run(jobs: Jobs, base: Path, tmp_path: Path) -> None:
    job_id, environment = begin(jobs, base, yolo(tmp_path / "set"), epochs=200)
    jobs.worker(**environment)
    reaches(jobs, job_id, 1)
    cancel(jobs.settings, job_id)
    assert jobs.ends(job_id, 20).status == "cancelled"
    assert len(qwen_registry(jobs.settings).entries()) == 1
