"""How sure a share or a median is: intervals of 95 %, fit for few observations too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054
"""Of 95 %, two-sided."""
DRAWS = 4000


@dataclass(frozen=True)
class Interval:
    """From ``low`` to ``high``."""

    low: float
    high: float


def wilson(count: int, total: int) -> Interval | None:
    """Wilson's score interval of a share, 0..1; None of nothing.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    if total <= 0:
        return None
    share, square = count / total, Z * Z / total
    middle = (share + square / 2) / (1 + square)
    half = Z * math.sqrt(share * (1 - share) / total + square / (4 * total)) / (1 + square)
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def bootstrapped_medians(
    values: NDArray[np.float64], draws: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Medians of bootstrap samples, (draws,), without drawing the samples.

    A resampled value is the sorted values' one at a uniform place, so a resample's median is the one at the median
    of N uniform places, whose distribution is known: Beta. It takes no longer with many values than with few.

    Args:
        values: (N,), N at least 1.
        draws: how many.
        generator: of random numbers.
    """
    ordered = np.sort(values)
    count = len(ordered)
    half = count // 2
    if count % 2:
        places = generator.beta(half + 1, half + 1, draws)
        return np.asarray(ordered[_place(places, count)])
    lower = generator.beta(half, half + 1, draws)
    upper = lower + (1 - lower) * generator.beta(1, half, draws)  # the least of those that are left
    return np.asarray((ordered[_place(lower, count)] + ordered[_place(upper, count)]) / 2)


def percentiles(values: NDArray[np.float64]) -> Interval:
    """The middle 95 % of some values."""
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(low), float(high))


def trimmed_mean(values: Sequence[float] | NDArray[np.float64], share: float = 0.1) -> float:
    """Mean without the smallest and the largest, of each ``share`` of the values, rounded down."""
    ordered = np.sort(np.asarray(values, np.float64))
    cut = int(share * len(ordered))
    return float(ordered[cut : len(ordered) - cut].mean())


def _place(uniform: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    return np.minimum((uniform * count).astype(np.int64), count - 1)
