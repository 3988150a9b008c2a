"""What is asked of others behind the answer: a page shows what was known last, and waits for nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

MOST_KEPT = 256


class Recent(Generic[Key, Value]):
    """Values by key, made again in the background when they are asked for and old."""

    def __init__(self, make: Callable[[Key], Value], fresh_seconds: float) -> None:
        """Prepare.

        Args:
            make: makes one, in a thread of its own; must not raise.
            fresh_seconds: how long it is good.
        """
        self._make = make
        self._fresh_seconds = fresh_seconds
        self._changed = threading.Condition()
        self._kept: dict[Key, tuple[float, Value]] = {}
        self._being_made: set[Key] = set()

    def get(self, key: Key, patience_seconds: float = 0.0) -> Value | None:
        """The last that is known; None where that is nothing, even after waiting so long."""
        with self._changed:
            known = self._kept.get(key)
            old = known is None or time.monotonic() - known[0] > self._fresh_seconds
            if old and key not in self._being_made:
                self._being_made.add(key)
                threading.Thread(target=self._renew, args=(key,), name="recent", daemon=True).start()
            if known is None and patience_seconds:
                self._changed.wait_for(lambda: key in self._kept, patience_seconds)
                known = self._kept.get(key)
            return None if known is None else known[1]

    def forget(self, key: Key) -> None:
        """What is known does not hold any more."""
        with self._changed:
            self._kept.pop(key, None)

    def _renew(self, key: Key) -> None:
        begun = time.monotonic()
        try:
            value = self._make(key)
            with self._changed:
                self._kept.pop(key, None)
                self._kept[key] = (begun, value)
                while len(self._kept) > MOST_KEPT:
                    del self._kept[next(iter(self._kept))]
        finally:
            with self._changed:
                self._being_made.discard(key)
                self._changed.notify_all()
