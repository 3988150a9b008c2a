"""Whether a new head may take over: it must know something, and be no worse than the active one.

Both are asked about the same held-out images, of which neither has learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.clip.metrics import macro_f1

Labels = NDArray[np.int64]
SHUFFLES = 500
CHANCE = 0.01  # how often luck alone may do as well as a head that is taken


@dataclass(frozen=True)
class Decision:
    """What the gate says, with the figures that it rests on.

    Attributes:
        activate: whether the head takes over by itself.
        reason: in a sentence.
        candidate, active, majority: macro-F1 on the held-out boxes; ``active`` is None where there is no head to
            compare with.
        luck: macro-F1 that only 1 % of random answers with the same class shares reach.
        boxes, images: how much was held out from both.
    """

    activate: bool
    reason: str
    candidate: float | None
    active: float | None
    majority: float | None
    luck: float | None
    boxes: int
    images: int

    def as_json(self) -> dict[str, Any]:
        """For reports."""
        return asdict(self)


def decide(
    truth: Sequence[str],
    candidate: Sequence[str],
    active: Sequence[str] | None,
    trained_on: Sequence[str],
    images: int,
    seed: int = 42,
) -> Decision:
    """Compare a new head with the active one and with what needs no learning.

    Args:
        truth: class of each held-out box.
        candidate: what the new head says of each, most probable class.
        active: what the active head says; None where there is none.
        trained_on: classes of the training boxes, of which the commonest is the trivial answer.
        images: how many pictures the boxes lie on.
        seed: of the shuffles.
    """
    if not truth:
        return Decision(
            False, "no box is held out, so it cannot be told whether the head is any good; label more images",
            None, None, None, None, 0, 0,
        )  # fmt: skip
    names = sorted({*truth, *candidate, *(active or ()), *trained_on})
    index = {name: place for place, name in enumerate(names)}
    right, mine = _places(truth, index), _places(candidate, index)
    count = len(names)
    score = macro_f1(right, mine, count)
    common = np.bincount(_places(trained_on, index), minlength=count).argmax() if len(trained_on) else 0
    majority = macro_f1(right, np.full(len(right), common), count)
    luck = _luck(right, mine, count, seed)
    before = macro_f1(right, _places(active, index), count) if active is not None else None

    reason, good = f"it reaches a macro-F1 of {score:.3f} on {len(truth)} held-out boxes", True
    if score <= majority:
        good, reason = False, f"its macro-F1 of {score:.3f} does not beat always saying the commonest class"
    elif score <= luck:
        good = False
        reason = f"its macro-F1 of {score:.3f} on {len(truth)} held-out boxes may be luck (random answers: {luck:.3f})"
    elif before is not None and score < before:
        good, reason = False, f"its macro-F1 of {score:.3f} is lower than the active head's {before:.3f}"
    elif before is not None:
        reason = f"its macro-F1 of {score:.3f} is not lower than the active head's {before:.3f}"
    return Decision(
        good, reason, _rounded(score), _rounded(before), _rounded(majority), _rounded(luck), len(truth), images
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)


def _luck(truth: Labels, said: Labels, count: int, seed: int) -> float:
    """The macro-F1 that answers in random order exceed in ``CHANCE`` of the cases: a permutation test."""
    rng = np.random.default_rng(seed)
    occurs = np.bincount(truth, minlength=count)
    present = occurs > 0
    if not present.any():
        return 0.0
    # macro_f1 of each order: how often a class occurs and is said stays, only which answers hit changes
    either = (occurs + np.bincount(said, minlength=count))[present].astype(np.float64)
    scores = []
    for _ in range(SHUFFLES):
        hits = np.bincount(truth[truth == rng.permutation(said)], minlength=count)[present]
        scores.append(float((2 * hits / either).mean()))
    return float(np.quantile(scores, 1 - CHANCE, method="lower"))


def _places(names: Sequence[str], index: dict[str, int]) -> Labels:
    return np.array([index[name] for name in names], np.int64)
