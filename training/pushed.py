"""The predictions that a job pushed, found and deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tator_sdk.settings import Settings
from tator_sdk.studio import open_studio, prediction_ids, sentences

Watch = Callable[[int, int], None]
"""Takes how many are done, of how many."""


def predictions_of(settings: Settings, project: int, job_id: str) -> list[int]:
    """Ids of the predictions that a job pushed.

    Raises:
        StudioError: Label Studio does not answer.
    """
    studio: Any = open_studio(settings)
    found = prediction_ids(studio, settings.label_studio_url, project, lambda one: one.endswith(f"/{job_id}"))
    return [number for number, _ in found]


def delete_predictions(settings: Settings, numbers: list[int], watch: Watch = lambda done, total: None) -> int:
    """Delete them; returns how many.

    Raises:
        StudioError: Label Studio does not answer.
    """
    studio: Any = open_studio(settings)
    with sentences(settings.label_studio_url):
        for count, number in enumerate(numbers):
            watch(count, len(numbers))
            studio.predictions.delete(number)
    watch(len(numbers), len(numbers))
    return len(numbers)
