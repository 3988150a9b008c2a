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
from typing import Any, Protocol, runtime_checkable

Json = Mapping[str, Any]
Key = tuple[object, str]  # task's id and prompt's id
REMEMBERED = 10_000  # prompts of each kind
SPENT = "spent"  # in place of a region's id: the point's object was accepted


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


@runtime_checkable
class KnowsRegionIds(Protocol):
    """A task that can tell the ids of its regions without reading the regions."""

    def region_ids(self, source: str) -> set[str]:
        """Ids of the regions in its annotations, drafts or predictions."""
        ...


def _region_ids(task: Json, *sources: str) -> set[str]:
    """Ids of the regions in a task's drafts, annotations or predictions."""
    if isinstance(task, KnowsRegionIds):
        return set().union(*(task.region_ids(source) for source in sources))
    holders = [holder for source in sources for holder in task.get(source) or []]
    regions = [item for holder in holders if isinstance(holder, Mapping) for item in holder.get("result") or []]
    return _ids([item for item in regions if isinstance(item, Mapping)])


def _ids(items: Sequence[Json]) -> set[str]:
    return {str(item.get("id")) for item in items}


class PendingPrompts:
    """Remembers how each box was drawn, and which region each point was answered with."""

    def __init__(self) -> None:
        self._drawn: OrderedDict[Key, tuple[Any, ...]] = OrderedDict()
        self._region_of: OrderedDict[Key, str] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, items: Sequence[Json], task: Json) -> frozenset[str]:
        """Ids of ``items`` that are to be answered.

        Args:
            items: the request's prompts.
            task: its task, with drafts, annotations and predictions.
        """
        stored = _region_ids(task, "annotations", "predictions")
        drafted = _region_ids(task, "drafts")
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
        """Those of a request's points that mean one object, oldest first; none where all belong to earlier ones.

        Points that the small tick left standing come again with those of the next object. Such a point is known
        by the region it was answered with: that stands in the draft, which the editor saves every five
        seconds, or it took the place of the object's first point, which is then missing. Nor are points prompts
        that were loaded with the page: of those the editor does not say whether they are positive.

        Args:
            items: the request's points.
            task: its task, with drafts, annotations and predictions.
        """
        stored = _region_ids(task, "annotations", "predictions")
        standing = stored | _region_ids(task, "drafts")
        told = "is_positive" in items[-1]
        waiting = _ids(items)
        meant = []
        with self._lock:
            for item in items:
                key = (task.get("id"), str(item.get("id")))
                region = self._region_of.get(key, key[1])
                replaced = (task.get("id"), region) in self._region_of
                if "id" not in item:  # the newer dialect
                    meant.append(item)
                elif region not in waiting and (region in standing or replaced):
                    self._region_of[key] = SPENT
                elif region != SPENT and key[1] not in stored and (not told or "is_positive" in item):
                    meant.append(item)
        return meant

    def answered(self, items: Sequence[Json], task: Json) -> None:
        """Remember prompts of a task that were answered."""
        with self._lock:
            for item in items:
                _remember(self._drawn, (task.get("id"), str(item.get("id"))), _shape(item))

    def answered_points(self, items: Sequence[Json], task: Json, region_id: str) -> None:
        """Remember the points of one object and the region they were answered with."""
        with self._lock:
            for item in (item for item in items if "id" in item):
                _remember(self._region_of, (task.get("id"), str(item.get("id"))), region_id)


class KeptInVain:
    """Tasks on which kept words found nothing: Label Studio asks at each opening, and would wait for nothing again."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, None] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, task: object, mark: str) -> None:
        """Note that words of that mark found nothing on a task."""
        with self._lock:
            _remember(self._known, (task, mark), None)

    def knows(self, task: object, mark: str) -> bool:
        """Whether they found nothing there."""
        with self._lock:
            return (task, mark) in self._known


def _remember(memory: OrderedDict[Key, Any], key: Key, value: Any) -> None:
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > REMEMBERED:
        memory.popitem(last=False)
