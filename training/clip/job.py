"""Head training as a job that a worker takes."""

from __future__ import annotations

from typing import Any

from tator_sdk.requests import HeadTraining
from training.job import run_job


def run(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """Train the head of a :class:`HeadTraining` request, given as JSON values."""
    from training.clip.train import train

    return run_job(job_id, lambda job, settings: train(HeadTraining.model_validate(request), settings, job))
