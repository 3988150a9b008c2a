"""Three lanes to one device: a click overtakes preloads, a preload overtakes batches.

One thread does the work, so a model is never asked twice at once; whatever waits longest in the
best lane comes next. Work that takes long is to be cut into steps by whoever submits it.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from enum import IntEnum
from typing import Any, TypeVar

from tator_ml.engine.messages import Busy

log = logging.getLogger(__name__)
T = TypeVar("T")


class Lane(IntEnum):
    """Lower goes first."""

    CLICK = 0
    PRELOAD = 1
    BATCH = 2


class Lanes:
    """A bounded priority queue before one working thread."""

    def __init__(self, limits: dict[Lane, int] | None = None) -> None:
        """Start the thread.

        Args:
            limits: how much may wait in each lane; more is refused as busy.
        """
        self._limits = limits or {Lane.CLICK: 64, Lane.PRELOAD: 32, Lane.BATCH: 256}
        self._order = itertools.count()
        self._queue: queue.PriorityQueue[tuple[int, int, Any]] = queue.PriorityQueue()
        self._waiting: Counter[Lane] = Counter()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="tator-device", daemon=True)
        self._thread.start()

    def submit(self, lane: Lane, work: Callable[[], T]) -> Future[T]:
        """Queue ``work``; its result or exception arrives in the future.

        Raises:
            Busy: as much as is allowed waits in the lane already.
        """
        with self._lock:
            if self._waiting[lane] >= self._limits[lane]:
                raise Busy("Tator is busy; try again in a moment.")
            self._waiting[lane] += 1
        future: Future[T] = Future()
        self._queue.put((lane, next(self._order), (future, work)))
        return future

    def waiting(self) -> dict[str, int]:
        """How much waits in each lane, by its name in lower case."""
        with self._lock:
            return {lane.name.lower(): self._waiting[lane] for lane in Lane}

    def close(self) -> None:
        """Finish what is running and end the thread; what waits is cancelled."""
        self._queue.put((-1, next(self._order), None))
        self._thread.join(timeout=30)

    def _work(self) -> None:
        while True:
            lane, _, item = self._queue.get()
            if item is None:
                break
            future, work = item
            with self._lock:
                self._waiting[Lane(lane)] -= 1
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # belongs to whoever waits for the future
                future.set_exception(error)
        while not self._queue.empty():
            _, _, item = self._queue.get_nowait()
            if item is not None:
                item[0].cancel()
