"""Which of the boxes in a request wait for an answer.

The editor sends every box of a label with each new one, and marks none as new. Known are those that
the task already holds, and those that we answered and that no longer stand as they were drawn: they
were accepted, or moved by hand since, and must not be touched again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]
REMEMBERED = 10_000


def _shape(item: Json) -> tuple[Any, ...]:
    value = item.get("value")
    if not isinstance(value, Mapping):
        return ()
    box = tuple(
        round(float(value[key]), 3) for key in ("x", "y", "width", "height", "rotation")
        if isinstance(value.get(key), int | float)
    )
    runs = value.get("rle")
    return (*box, len(runs), hash(tuple(runs))) if isinstance(runs, list) else box


class PendingPrompts:
    """Remembers how each answered prompt was drawn."""

    def __init__(self) -> None:
        self._drawn: OrderedDict[str, tuple[Any, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, items: Sequence[Json], standing: Sequence[Json]) -> frozenset[str]:
        """Ids of ``items`` that are to be answered.

        Args:
            items: the request's prompts.
            standing: regions of the task's drafts, annotations and predictions.
        """
        known = {str(item.get("id")) for item in standing}
        with self._lock:
            pending = set()
            for item in items:
                name = str(item.get("id"))
                drawn = self._drawn.get(name)
                if name not in known and (drawn is None or drawn == _shape(item)):
                    pending.add(name)
            return frozenset(pending)

    def answered(self, items: Sequence[Json]) -> None:
        """Remember prompts that were answered."""
        with self._lock:
            for item in items:
                self._drawn[str(item.get("id"))] = _shape(item)
                self._drawn.move_to_end(str(item.get("id")))
            while len(self._drawn) > REMEMBERED:
                self._drawn.popitem(last=False)
