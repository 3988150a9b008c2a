"""What a backend does about Label Studio's events: heads learn, annotations are tidied, the next picture is made ready.

All of it happens behind the answer: Label Studio gives up on an event after a second.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from label_config.errors import LabelConfigError
from label_config.reader import read_cached
from tator_ml.prompts.leftovers import Negative, negatives_of, without_leftovers
from tator_ml.services import Services
from tator_sdk.errors import TatorError

log = logging.getLogger(__name__)

Json = Mapping[str, Any]
Suggested = Callable[[int], Sequence[Json]]
"""Task → what is on record of it."""


def take_event(services: Services, project: int | None, event: str, data: Json) -> dict[str, Any]:
    """Take note of an event; unknown ones are ignored.

    Args:
        services: of the web process.
        project: the event's.
        event: ``ANNOTATION_CREATED``, ``START_TRAINING``, …
        data: the whole webhook.

    Returns:
        What is told to Label Studio, which shows none of it.
    """
    log.info("project %s: event %s", project, event)
    if project is None:
        return {"event": event}
    return _Events(services, project).take(event, data)


class _Events:
    def __init__(self, services: Services, project: int) -> None:
        self._services = services
        self._project = project

    def take(self, event: str, data: Json) -> dict[str, Any]:
        follower = self._services.follower
        if event in ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED"):
            given = data.get("annotation")
            if isinstance(given, list) and follower is not None:  # they come without their tasks
                follower.came_in_bulk(self._project, _numbers(given))
            elif not isinstance(given, list):
                self._go_on(event, data.get("task"))
                suggested = cache(self._suggested)  # both ask about the same task
                self._tidy(given, data, suggested)
                self._follow(given, data, suggested)
        elif event in ("ANNOTATIONS_DELETED", "ANNOTATION_DELETED"):
            gone = _numbers(data.get("annotations") or [data.get("annotation")])
            self._services.quality.deleted(self._project, gone)
            if follower is not None:
                follower.deleted(self._project, gone)
        elif event == "START_TRAINING" and follower is not None:
            return self._train()
        return {"event": event}

    def _go_on(self, event: str, task: object) -> None:
        """Whoever submitted goes on to the next task now."""
        number = task.get("id") if isinstance(task, Mapping) else None
        if (
            event == "ANNOTATION_CREATED"
            and isinstance(number, int)
            and self._services.preloads_for(self._services.projects.get(self._project))
        ):
            self._services.preloader.submitted(self._project, number)

    def _train(self) -> dict[str, Any]:
        assert self._services.follower is not None  # noqa: S101
        try:
            return {"job": self._services.follower.train(self._project)}
        except TatorError as error:  # Label Studio shows nothing of an answer; the strip does
            log.warning("project %s is not trained: %s", self._project, error)
            self._services.notices.failed(self._project, str(error))
            return {"error": str(error)}

    def _follow(self, annotation: object, data: Json, suggested: Suggested) -> None:
        """Let heads learn from an annotation, have its classes checked, and see what it made of the suggestions."""
        follower, about, task = self._services.follower, data.get("project"), data.get("task")
        if not isinstance(annotation, Mapping) or not isinstance(annotation.get("id"), int):
            return
        if not isinstance(task, Mapping) or not isinstance(task.get("id"), int):
            return
        label_config = str(about.get("label_config") or "") if isinstance(about, Mapping) else ""
        self._services.quality.annotated(self._project, annotation, task, label_config)
        if follower is None:
            return
        seen = frozenset(str(one["region_id"]) for one in suggested(task["id"]))
        follower.annotated(self._project, annotation, task, label_config, seen)

    def _tidy(self, annotation: object, data: Json, suggested: Suggested) -> None:
        """Free a submitted annotation of the points that asked for its regions, and of negative examples."""
        wanted = self._services.settings.remove_leftover_points
        if not wanted or not isinstance(annotation, Mapping):
            return
        number, task, result = (annotation.get(key) for key in ("id", "task", "result"))
        if not (isinstance(number, int) and isinstance(task, int) and isinstance(result, list)):
            return
        regions = [item for item in result if isinstance(item, Mapping)]
        kept = without_leftovers(regions, suggested(task), _negatives(data.get("project")))
        if len(kept) < len(regions) == len(result):
            self._services.tidier.tidy(number, task, regions, kept)

    def _suggested(self, task: int) -> Sequence[Json]:
        """What is on record of a task; nothing where the record cannot be read: the annotation counts all the same."""
        try:
            return self._services.suggestions.of_task(self._project, task)
        except sqlite3.DatabaseError as error:
            log.error("project %s, task %s: the record of suggestions cannot be read: %s", self._project, task, error)
            return []


def _negatives(project: object) -> frozenset[Negative]:
    """Labels of negative examples in a project's configuration; none where it cannot be read."""
    if not isinstance(project, Mapping):
        return frozenset()
    try:
        return negatives_of(read_cached(str(project.get("label_config") or "")))
    except LabelConfigError:
        return frozenset()


def _numbers(items: object) -> list[int]:
    """Ids of annotations, given as numbers or as objects."""
    given = items if isinstance(items, list) else []
    numbers = [item.get("id") if isinstance(item, Mapping) else item for item in given]
    return [number for number in numbers if isinstance(number, int)]
