"""The predictions that a job or a build pushed, found and deleted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tator_sdk import bulk
from tator_sdk.settings import Settings

Watch = Callable[[int, int], None]
"""Takes how many are done, of how many."""


def predictions_of(settings: Settings, project: int, name: str) -> list[int]:
    """Ids of the predictions that a job or a build pushed; the list of all is read as it comes in.

    Raises:
        StudioError: Label Studio does not answer.
    """
    with bulk.open_bulk(settings) as api:
        return [one.number for one in api.predictions(project) if one.version.endswith(f"/{name}")]


def delete_predictions(settings: Settings, numbers: Sequence[int], watch: Watch = lambda done, total: None) -> None:
    """Delete them; one that is gone already, with its task or otherwise, stops nothing.

    Raises:
        StudioError: Label Studio does not answer.
    """
    with bulk.open_bulk(settings) as api:
        for count, number in enumerate(numbers):
            watch(count, len(numbers))
            api.delete(f"/api/predictions/{number}/")
    watch(len(numbers), len(numbers))
