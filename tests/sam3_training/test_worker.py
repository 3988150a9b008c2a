"""A tuning that a real worker does, whose processes are killed in the middle: project, run, activation, and back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tator_ml.jobs import start
from tator_ml.sam3.registry import sam3_registry
from tator_sdk.sam3_request import Sam3Training
from tests.jobs.conftest import Jobs, until
from tests.qwen.material import yolo
from tests.sam3_training.material import FAST
from training.sam3.promote import promote
from training.sam3.storage import deletable, stored

pytestmark = pytest.mark.timeout(600)


@pytest.mark.faults
def test_a_worker_that_is_killed_leaves_the_rest_to_the_next(jobs: Jobs, base: Path, tmp_path: Path) -> None:
    settings = jobs.settings.model_copy(update={"sam3_model_id": str(base)})
    request = Sam3Training.model_validate(
        {"dataset": str(yolo(tmp_path / "set")), **FAST, "epochs": 40, "evaluate_every": 100, "compare_pictures": 1}
    )
    job_id = start(settings, "sam3", request.model_dump(mode="json"), title="tune").id
    environment = {"SAM3_MODEL_ID": str(base), "TATOR_SAM3_MODEL_ID": str(base), "OMP_NUM_THREADS": "1"}
    environment |= {"TATOR_DEVICE": "cpu", "TATOR_OFFLINE": "true"}
    worker = jobs.worker(**environment)

    def there() -> bool:
        record = jobs.records.get(job_id)
        assert not record.over, (record.error, jobs.records.log_lines(job_id))
        return record.what == "training" and record.done >= 5

    until(there, 240)
    os.kill(worker.pid, signal.SIGKILL)  # its work-horse ends with it
    worker.wait(10)
    found = stored(settings)
    assert found and all(one.held in {"is not over", "is being trained"} for one in found)
    assert not deletable(found, "all")
    promoted = promote(settings, job_id)  # what a dead attempt has left is a run at once
    jobs.worker(**environment)
    until(lambda: jobs.records.get(job_id).attempt == 2, 240)  # how soon is measured elsewhere; imports are slow
    record = jobs.ends(job_id, 240)
    assert (record.status, record.attempt) == ("done", 2), record.error
    assert any("going on from step" in str(line) for line in jobs.records.log_lines(job_id))
    (run, other) = sam3_registry(settings).entries()[1:]
    assert other.id == promoted.id and record.result is not None and record.result["id"] == run.id
    metrics = run.metrics or {}
    assert metrics["evaluations"][-1]["step"] == metrics["steps"] == metrics["planned_steps"]
    assert {one.scope for one in stored(settings)} == {"runs"}
    steps = [point["step"] for point in jobs.records.points(job_id) if "loss" in point]
    assert set(steps) >= set(range(6, metrics["steps"] + 1))
