"""The job ``register``: a data set is read whole and entered in the registry, or brought up to date there."""

from __future__ import annotations

from typing import Any

from tator_sdk.data_requests import Registration
from tator_sdk.datasets import DatasetRegistry
from tator_sdk.settings import Settings
from training.job import Job, run_job


def run(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """Do a :class:`Registration` request, given as JSON values, as a worker's job."""
    return run_job(job_id, lambda job, settings: register(Registration.model_validate(request), settings, job))


def register(request: Registration, settings: Settings, job: Job) -> dict[str, Any]:
    """Read the data set and keep its record.

    Returns:
        The record's id, whether it was there, and whether pictures and labels were the same; JSON values.

    Raises:
        TatorError: there is no data set.
    """
    registry = DatasetRegistry(settings.home)
    path = request.path.expanduser().resolve()
    before = next((one for one in registry.list() if one.path == str(path)), None)
    given = {"project": request.project, "origin": request.origin or None}
    source = {name: value for name, value in given.items() if value is not None} or (before and before.source) or None
    record = registry.register(
        path, type=request.type, source=source, progress=lambda done, all_: job.progress(done, all_, "reading pictures")
    )
    same = before is not None and before.signature == record.signature
    job.log(f"'{record.id}': {record.pictures} pictures, {sum(record.classes.values())} objects")
    return {"dataset": record.id, "known": before is not None, "same": same, "pictures": record.pictures}
