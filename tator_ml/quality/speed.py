"""Seconds per object, with assistance and without it, and whether the difference is more than luck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tator_ml.quality.figures import Wanted
from tator_ml.quality.intervals import DRAWS, Interval, bootstrapped_medians, percentiles, trimmed_mean
from tator_ml.quality.store import QualityStore

PAUSE_SECONDS = 1800.0
"""An annotation that took longer was left open: it says nothing about the work."""
FEWEST = 20
"""With fewer annotations on either side no difference is told."""


@dataclass(frozen=True)
class Pace:
    """How fast some annotations were made.

    Attributes:
        annotations: that are counted; ``objects`` in them.
        objects: see ``annotations``.
        median: seconds per object of the annotation in the middle; None where there is none.
        interval: where that may well lie.
        trimmed: mean without the fastest and the slowest tenth.
        pauses: annotations that are left out, as they took longer than half an hour.
    """

    annotations: int
    objects: int
    median: float | None
    interval: Interval | None
    trimmed: float | None
    pauses: int


@dataclass(frozen=True)
class Contrast:
    """Assisted against manual.

    Attributes:
        assisted: with suggestions.
        manual: without any.
        saved: share of the manual seconds per object that assistance saves, by the medians; negative where it costs.
        interval: where that may well lie.
    """

    assisted: Pace
    manual: Pace
    saved: float | None = None
    interval: Interval | None = None

    @property
    def enough(self) -> bool:
        """Whether there are enough annotations on either side."""
        return min(self.assisted.annotations, self.manual.annotations) >= FEWEST

    @property
    def verdict(self) -> str:
        """What can be said, in a sentence."""
        if not self.enough or self.saved is None or self.interval is None:
            there = f"{self.assisted.annotations} with assistance and {self.manual.annotations} without"
            return f"Too few to tell: {there}; at least {FEWEST} of each are needed."
        low, high = sorted((100 * self.interval.low, 100 * self.interval.high))
        if low <= 0 <= high:
            return f"No difference can be told: between {low:.0f} % and {high:.0f} % of the time per object are saved."
        if self.saved > 0:
            return f"Assistance saves {100 * self.saved:.0f} % of the time per object ({low:.0f} to {high:.0f} %)."
        return f"Assistance costs {-100 * self.saved:.0f} % more time per object ({-high:.0f} to {-low:.0f} %)."


def as_it_happened(store: QualityStore, wanted: Wanted) -> Contrast:
    """Annotations on which something was suggested against all others; people chose which these were."""
    where, values = wanted.where(but=("version", "label", "assist"))
    return _contrast(
        store.rows(
            f"SELECT lead_seconds, objects, assisted FROM annotations WHERE {where} "  # noqa: S608 - no user's text
            "AND lead_seconds > 0 AND objects > 0",
            values,
        )
    )


def on_purpose(store: QualityStore, project: int, since: float) -> Contrast:
    """The tasks of a comparison that were drawn against those that were not, whether or not assistance was used.

    Args:
        store: of annotations.
        project: Label Studio's number.
        since: when the comparison began, which names it.
    """
    rows = store.rows(
        "SELECT lead_seconds, objects, NOT drawn FROM annotations WHERE project = ? AND comparison = ? "
        "AND lead_seconds > 0 AND objects > 0",
        (project, since),
    )
    return _contrast(rows)


def _contrast(rows: Sequence[tuple[float, int, int]]) -> Contrast:
    values = np.array(rows, np.float64).reshape(-1, 3)
    generator = np.random.default_rng(0)  # the same figures at each look
    sides = [values[values[:, 2] == side] for side in (1, 0)]
    (assisted, assisted_draws), (manual, manual_draws) = (_pace(side, generator) for side in sides)
    if not (assisted.median and manual.median):
        return Contrast(assisted, manual)
    saved = 1 - assisted.median / manual.median
    return Contrast(assisted, manual, saved, percentiles(1 - assisted_draws / manual_draws))


def _pace(rows: NDArray[np.float64], generator: np.random.Generator) -> tuple[Pace, NDArray[np.float64]]:
    kept = rows[rows[:, 0] <= PAUSE_SECONDS]
    pauses = len(rows) - len(kept)
    if not len(kept):
        return Pace(0, 0, None, None, None, pauses), np.empty(0)
    each = kept[:, 0] / kept[:, 1]
    draws = bootstrapped_medians(each, DRAWS, generator)
    pace = Pace(
        len(each), int(kept[:, 1].sum()), float(np.median(each)), percentiles(draws), trimmed_mean(each), pauses
    )
    return pace, draws
