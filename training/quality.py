"""The job ``quality``: a project's annotations and predictions read again for the quality record."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

from tator_ml.quality.follow import read_project
from tator_ml.quality.store import quality_store
from tator_ml.suggestions import Suggestions
from tator_sdk.bulk import open_bulk
from tator_sdk.requests import QualityReading
from tator_sdk.settings import Settings
from training.job import Job, run_job


def run(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """Read the project of a :class:`QualityReading` request, given as JSON values, as a worker's job."""
    return run_job(job_id, lambda job, settings: read(QualityReading.model_validate(request), settings, job))


def read(request: QualityReading, settings: Settings, job: Job) -> dict[str, Any]:
    """Bring the quality record of a project up to date; may be begun again at any time.

    Args:
        request: which project.
        settings: of this installation.
        job: takes progress and log; may stop the work.

    Returns:
        How many tasks and annotations were read, and how many that were on record are gone.

    Raises:
        TatorError: in a sentence.
    """
    begun = time.monotonic()
    with (
        closing(quality_store(settings)) as store,
        closing(Suggestions(settings.home / "suggestions.sqlite")) as suggestions,
        open_bulk(settings) as api,
    ):
        done = read_project(
            api, store, suggestions, request.project,
            lambda tasks, total: job.progress(tasks, total, "reading annotations"),
        )  # fmt: skip
    job.log(f"{done.annotations} annotations of {done.tasks} tasks read; {done.gone} on record are gone")
    return {
        "project": request.project,
        "tasks": done.tasks,
        "annotations": done.annotations,
        "gone": done.gone,
        "seconds": round(time.monotonic() - begun, 2),
    }
