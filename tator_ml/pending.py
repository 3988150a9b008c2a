"""Which of the prompts in a request wait for an answer.

The editor sends every box or point of a label with each new one, the new one last, and marks none as
new. Boxes not to be touched are those that carry a score, since only an answer gives one; those of
submitted annotations and predictions; those that we answered and that no longer stand as they were
drawn; and those of a draft, unless it is the last, because a draft may be saved while a prompt still
waits. Of the points, those that an earlier object left behind are no part of the new one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]
Key = tuple[object, str]  # task's id and prompt's id
REMEMBERED = 10_000


def _shape(item: Json) -> tuple[Any, ...]:
    value = item.get("value")
    if not isinstance(value, Mapping):
        return ()
    box = tuple(
        round(float(value[key]), 3)
        for key in ("x", "y", "width", "height", "rotation")
        if isinstance(value.get(key), int | float)
    )
    runs = value.get("rle")
    return (*box, len(runs), hash(tuple(runs))) if isinstance(runs, list) else box


def _ids(task: Json, *sources: str) -> set[str]:
    """Ids of the regions in a task's drafts, annotations or predictions."""
    holders = [holder for source in sources for holder in task.get(source) or []]
    regions = [item for holder in holders if isinstance(holder, Mapping) for item in holder.get("result") or []]
    return {str(item.get("id")) for item in regions if isinstance(item, Mapping)}


class PendingPrompts:
    """Remembers how each box was drawn and with which first point each further one was sent."""

    def __init__(self) -> None:
        self._drawn: OrderedDict[Key, tuple[Any, ...]] = OrderedDict()
        self._first: OrderedDict[Key, str] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, items: Sequence[Json], task: Json) -> frozenset[str]:
        """Ids of ``items`` that are to be answered.

        Args:
            items: the request's prompts.
            task: its task, with drafts, annotations and predictions.
        """
        stored = _ids(task, "annotations", "predictions")
        drafted = _ids(task, "drafts")
        with self._lock:
            pending = set()
            for index, item in enumerate(items):
                name = str(item.get("id"))
                if item.get("score") is not None or name in stored:
                    continue
                drawn = self._drawn.get((task.get("id"), name))
                last = index == len(items) - 1
                if drawn == _shape(item) if drawn is not None else last or name not in drafted:
                    pending.add(name)
            return frozenset(pending)

    def points(self, items: Sequence[Json], task: Json) -> list[Json]:
        """Those of a request's points that mean one object, oldest first.

        An object's answer takes the id of its first point. Accepted with the small tick beside it, the answer
        replaces that point only: further ones stay on the canvas, and come again with the next object's.
        Where the first was deleted by hand instead, the editor sends the others at once, by themselves.
        Neither are points prompts that came with the page: the editor does not say whether those are positive.

        Args:
            items: the request's points.
            task: its task, with annotations and predictions.
        """
        stored = _ids(task, "annotations", "predictions")
        told = "is_positive" in items[-1]
        standing = [
            item for item in items if str(item.get("id")) not in stored and not (told and "is_positive" not in item)
        ] or list(items[-1:])
        ids = {str(item.get("id")) for item in standing}
        with self._lock:
            firsts = [self._first.get((task.get("id"), name := str(item.get("id"))), name) for item in standing]
            meant = [item for item, first in zip(standing, firsts, strict=True) if first in ids] or standing
            for item in meant:
                _remember(self._first, (task.get("id"), str(item.get("id"))), str(meant[0].get("id")))
        return meant

    def answered(self, items: Sequence[Json], task: Json) -> None:
        """Remember prompts of a task that were answered."""
        with self._lock:
            for item in items:
                _remember(self._drawn, (task.get("id"), str(item.get("id"))), _shape(item))


def _remember(memory: OrderedDict[Key, Any], key: Key, value: Any) -> None:
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > REMEMBERED:
        memory.popitem(last=False)
