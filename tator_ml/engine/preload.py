"""Pictures made ready before anybody asks: a few threads that read and decode, one picture ahead of the device."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial

from tator_ml.engine.frugal import Frugal
from tator_ml.engine.lanes import About, Lane, Lanes, Ticket
from tator_ml.engine.messages import Busy
from tator_ml.engine.supply import Supply
from tator_sdk.errors import TatorError

log = logging.getLogger(__name__)
THREADS = 2  # one decodes while the other's picture is encoded; more would only hold decoded pictures


class Preloader:
    """Brings pictures through the preload lane."""

    def __init__(self, lanes: Lanes, segmenter: Callable[[str | None], Frugal], supply: Supply) -> None:
        self._lanes = lanes
        self._segmenter = segmenter
        self._supply = supply
        self._queue: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        self._known: dict[str, str] = {}  # name → version, so that what is warm is known without loading anything
        for number in range(THREADS):
            threading.Thread(target=self._work, name=f"tator-preload-{number}", daemon=True).start()

    def submit(self, image: str, segmenter: str | None, group: str) -> bool:
        """Have a picture made ready; False when too many wait already."""
        name = segmenter or ""
        version = self._known.get(name)
        if version is not None and self._supply.warm.get(version, image) is not None:
            return True
        if self._lanes.waits(Lane.PRELOAD, image, name):
            return True
        try:
            self._queue.put(self._lanes.enter(Lane.PRELOAD, About(image, name, group=group, what="encoding ahead")))
        except Busy:
            return False
        return True

    def close(self) -> None:
        """End the threads after what they are at."""
        for _ in range(THREADS):
            self._queue.put(None)

    def _work(self) -> None:
        while (ticket := self._queue.get()) is not None:
            if ticket.future.done():  # dropped while it waited
                continue
            try:
                self._bring(ticket)
            except CancelledError:
                pass
            except TatorError as error:
                log.warning("preload of %s failed: %s", ticket.about.image[:12], error)
            except Exception:  # one picture's surprise must not end the thread
                log.exception("preload of %s failed", ticket.about.image[:12])
            finally:
                self._lanes.leave(ticket)

    def _bring(self, ticket: Ticket) -> None:
        segmenter = self._segmenter(ticket.about.segmenter or None)
        self._known[ticket.about.segmenter] = segmenter.version
        prepared = self._supply.prepare(segmenter.version, ticket.about.image, pixels=True)
        self._lanes.ready(ticket, partial(self._supply.warmed, segmenter, prepared))
        del prepared
        ticket.future.result()
