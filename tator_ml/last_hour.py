"""How long answers took in the last hour, minute by minute: exact percentiles, in bounded memory."""

from __future__ import annotations

import random
import threading
import time
from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

MINUTES = 60
MOST_IN_MINUTE = 2000
"""Of more answers of one kind in a minute, so many are kept, drawn at random; all are counted."""
QUANTILES = (0.5, 0.95, 0.99)

Kind = tuple[str, str]
"""Lane and assist."""


@dataclass(frozen=True)
class Latency:
    """How long some answers took.

    Attributes:
        count: of answers.
        p50, p95, p99: percentiles in seconds.
    """

    count: int
    p50: float
    p95: float
    p99: float


class LastHour:
    """A recorder; any thread may add."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Prepare.

        Args:
            clock: seconds, of which only differences count.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._minutes: OrderedDict[int, dict[Kind, array[float]]] = OrderedDict()
        self._counts: dict[int, Counter[Kind]] = {}
        self._draw = random.Random(0)  # noqa: S311 - which answers are kept is no secret

    def add(self, lane: str, assist: str, seconds: float) -> None:
        """Record one answer."""
        kind = (lane, assist)
        with self._lock:
            minute = self._forget_old()
            kept = self._minutes.setdefault(minute, {}).setdefault(kind, array("f"))
            counts = self._counts.setdefault(minute, Counter())
            counts[kind] += 1
            if len(kept) < MOST_IN_MINUTE:
                kept.append(seconds)
            elif (place := self._draw.randrange(counts[kind])) < MOST_IN_MINUTE:  # each is kept as likely as any other
                kept[place] = seconds

    def by_kind(self) -> dict[Kind, Latency]:
        """Each lane and assist that was asked in the last hour, in the order of their names."""
        with self._lock:
            self._forget_old()
            kinds = sorted({kind for counts in self._counts.values() for kind in counts})
            parts = {kind: [one[kind] for one in self._minutes.values() if kind in one] for kind in kinds}
            counts = {kind: sum(one[kind] for one in self._counts.values()) for kind in kinds}
            return {kind: _latency(parts[kind], counts[kind]) for kind in kinds}

    def by_minute(self, lane: str) -> dict[int, Latency]:
        """One lane's answers by minute, which is the minutes since the epoch; minutes without any are left out."""
        with self._lock:
            self._forget_old()
            return {
                minute: _latency(parts, sum(count for (of, _), count in self._counts[minute].items() if of == lane))
                for minute, kinds in self._minutes.items()
                if (parts := [kept for (of, _), kept in kinds.items() if of == lane])
            }

    def _forget_old(self) -> int:
        """Under the lock; returns the minute at hand."""
        minute = int(self._clock() // 60)
        for old in [one for one in self._minutes if one <= minute - MINUTES]:
            del self._minutes[old], self._counts[old]
        return minute


def _latency(parts: Iterable[array[float]], count: int) -> Latency:
    seconds = np.concatenate([np.frombuffer(part, np.float32) for part in parts])
    p50, p95, p99 = (float(one) for one in np.quantile(seconds, QUANTILES))
    return Latency(count, p50, p95, p99)
