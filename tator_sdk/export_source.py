"""A Label Studio project → its pictures with their shapes, a page of tasks at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from label_config.interface import Interface
from tator_sdk.annotations import addresses_of
from tator_sdk.requests import Export
from tator_sdk.shapes import RegionShape, shapes_of_result
from tator_sdk.studio import labelled_tasks, sentences

PREDICTED = json.dumps(
    {
        "filters": {
            "conjunction": "and",
            "items": [
                {"filter": "filter:tasks:total_predictions", "operator": "greater", "type": "Number", "value": 0}
            ],
        }
    }
)


@dataclass(frozen=True, eq=False)
class TaskPicture:
    """A picture of a task with what stands on it.

    Attributes:
        task: its number.
        address: of the picture.
        shapes: on it.
        left_out: sentences about regions that give no shape.
    """

    task: int
    address: str
    shapes: tuple[RegionShape, ...]
    left_out: tuple[str, ...] = ()


def project_pictures(studio: Any, url: str, request: Export, interface: Interface) -> Iterator[TaskPicture]:
    """The pictures of annotated tasks, or of those with a prediction of the version asked for.

    Raises:
        StudioError: from the iteration.
    """
    version = request.predictions
    if version is None:
        tasks = labelled_tasks(studio, url, request.project)
    else:
        tasks = _predicted_tasks(studio, url, request.project)
    for task in tasks:
        if version is None:
            results = chosen_results(task.annotations or [], request.annotations)
        else:
            results = predicted_results(task.predictions or [], version)
        if results:
            yield from task_pictures(int(task.id), task.data or {}, results, interface)


def chosen_results(annotations: Sequence[Any], which: str) -> list[Sequence[object]]:
    """Results of a task's submitted annotations: the one that was changed last, or all; skipped ones aside."""
    submitted = [one for one in annotations if isinstance(one, Mapping) and not one.get("was_cancelled")]
    submitted.sort(key=lambda one: (str(one.get("updated_at") or one.get("created_at") or ""), int(one.get("id") or 0)))
    return [one.get("result") or [] for one in (submitted if which == "all" else submitted[-1:])]


def predicted_results(predictions: Sequence[Any], version: str) -> list[Sequence[object]]:
    """The newest prediction of a model version, as a list of one; empty where there is none."""
    rows = [one if isinstance(one, Mapping) else vars(one) for one in predictions]
    mine = [one for one in rows if one.get("model_version") == version]
    return [max(mine, key=lambda one: int(one.get("id") or 0)).get("result") or []] if mine else []


def task_pictures(
    task: int, data: Mapping[str, Any], results: Sequence[Sequence[object]], interface: Interface
) -> Iterator[TaskPicture]:
    """A task's pictures, of all its image tags and pages, each with the shapes that lie on it."""
    found = [shapes_of_result(result, interface) for result in results]
    shapes = [shape for one in found for shape in one.shapes]
    said = tuple(f"task {task}: region {region}: {reason}" for one in found for region, reason in one.left_out)
    for number, (place, address) in enumerate(addresses_of(interface, data).items()):
        here = tuple(one for one in shapes if (one.image_name, one.item_index) == place)
        yield TaskPicture(task, address, here, said if number == 0 else ())


def _predicted_tasks(studio: Any, url: str, project: int) -> Iterator[Any]:
    seen: set[int] = set()  # pages shift where somebody labels meanwhile
    with sentences(url):
        for task in studio.tasks.list(project=project, query=PREDICTED, fields="all", page_size=100):
            if task.id not in seen:
                seen.add(task.id)
                yield task
