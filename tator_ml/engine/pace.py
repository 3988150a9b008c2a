"""How much of a job's work makes one step on the device: a fraction of a second, less while people click."""

from __future__ import annotations

from tator_ml.running.lease import ClickLease

STEP_SECONDS = 0.25
WATCHED_STEP_SECONDS = 0.04  # so that a click waits for a fraction of itself at most
WATCHED_SECONDS = 30.0  # after a click people are expected to go on


class Pace:
    """Learns what an item takes, for each kind of work."""

    def __init__(self, lease: ClickLease, first: int, most: int) -> None:
        """Prepare.

        Args:
            lease: of clicks, which steps stand aside for.
            first: items in a step, as long as it is not known what one takes.
            most: items in any step.
        """
        self._lease = lease
        self._first = first
        self._most = most
        self._seconds: dict[str, float] = {}

    def next_step(self, kind: str) -> int:
        """Wait while clicks are answered; then, how many items the next step may have."""
        self._lease.stand_aside()
        known = self._seconds.get(kind)
        if known is None:
            return self._first
        seconds = WATCHED_STEP_SECONDS if self._lease.watched(WATCHED_SECONDS) else STEP_SECONDS
        return int(min(max(seconds / max(known, 1e-6), 1), self._most))

    def took(self, kind: str, seconds: float, items: int) -> None:
        """Learn from a step."""
        self._seconds[kind] = seconds / items
