"""The comparison on purpose: a share of a project's tasks, drawn at random, is labelled without assistance."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

MOST_SHARE = 0.5
NO_ASSISTANCE = "No assistance on this task: it is drawn for the comparison."


@dataclass(frozen=True)
class Comparison:
    """Which tasks are drawn.

    A task is drawn by a hash of seed and number, so every process and every later day draws the same, nothing needs
    to be kept, and neither its place in the project nor who opens it matters. A greater share of the same seed keeps
    all that were drawn before.

    Attributes:
        share: of the tasks, above 0 and at most 0.5.
        seed: another one draws other tasks.
        since: when it began, seconds since the epoch; annotations made before are no part of it.
    """

    share: float
    seed: int
    since: float

    def draws(self, task: int | None) -> bool:
        """Whether a task gets no assistance; a request without a task's number always gets it."""
        if task is None:
            return False
        digest = hashlib.sha256(f"{self.seed}/{task}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.share * 2**64
