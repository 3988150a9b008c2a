"""Which of the boxes in a request wait for an answer.

The editor sends every box of a label with each new one, the new one last, and marks none as new. Not
to be touched are those that carry a score, since only an answer gives one; those of submitted
annotations and predictions; those that we answered and that no longer stand as they were drawn; and
those of a draft, unless it is the last, because a draft may be saved while a prompt still waits.
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
    """Remembers how each answered prompt was drawn."""

    def __init__(self) -> None:
        self._drawn: OrderedDict[Key, tuple[Any, ...]] = OrderedDict()
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

    def answered(self, items: Sequence[Json], task: Json) -> None:
        """Remember prompts of a task that were answered."""
        with self._lock:
            for item in items:
                key = (task.get("id"), str(item.get("id")))
                self._drawn[key] = _shape(item)
                self._drawn.move_to_end(key)
            while len(self._drawn) > REMEMBERED:
                self._drawn.popitem(last=False)
