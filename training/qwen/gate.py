"""Whether a tuned model may take over: it must look at the pictures, and be better than the active one.

Both are asked about the same held-out pictures, of which neither has learned. Tuning a vision-language model can make
its detection worse, so being no worse is not enough here, and neither is being better by luck.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.qwen.scores import Scores, Tally, map50, score

SHUFFLES = 2000
CHANCE = 0.05
"""How often luck alone may do as well as a model that is taken."""


@dataclass(frozen=True)
class Decision:
    """What the gate says, with the figures that it rests on.

    Attributes:
        activate: whether the model takes over by itself.
        reason: in a sentence.
        candidate, active: figures of both on the same held-out pictures; None where nothing could be compared.
        constant: mAP@0.5 of an answer that never looks at the picture.
        luck: how often a lead as large would come about if both were equally good.
        pictures: that both were asked about.
    """

    activate: bool
    reason: str
    candidate: Scores | None
    active: Scores | None
    constant: float | None
    luck: float | None
    pictures: int

    def as_json(self) -> dict[str, Any]:
        """For reports."""
        whole = asdict(self)
        for name in ("candidate", "active"):
            scores: Scores | None = getattr(self, name)
            whole[name] = scores.as_json() if scores else None
        return whole


def decide(candidate: Tally, active: Tally, constant: Tally, seed: int = 1337) -> Decision:
    """Compare a new model with the active one and with what needs no learning.

    Args:
        candidate: the new model's answers.
        active: the active model's, on the same pictures.
        constant: answers that do not depend on the picture.
        seed: of the shuffles.
    """
    pictures = len(candidate.counts)
    if not pictures or not candidate.counts[..., 1].sum():
        said = "no held-out picture shows an object that both could be asked for, so they cannot be compared"
        return Decision(False, f"{said}; label more pictures", None, None, None, None, pictures)
    mine, theirs, trivial = score(candidate), score(active), score(constant).map50
    luck = _luck(candidate.counts, active.counts, seed)
    on = f"on {pictures} held-out pictures"
    good = False
    if mine.map50 <= trivial:
        reason = f"its mAP@0.5 of {mine.map50:.3f} {on} does not beat answering the same for every picture"
    elif mine.map50 <= theirs.map50:
        reason = f"its mAP@0.5 of {mine.map50:.3f} {on} does not beat the active model's {theirs.map50:.3f}"
    elif luck > CHANCE:
        reason = (
            f"its mAP@0.5 of {mine.map50:.3f} {on} may beat the active model's {theirs.map50:.3f} by luck alone "
            f"({luck:.0%} of the cases); label more pictures"
        )
    else:
        good, reason = True, f"its mAP@0.5 of {mine.map50:.3f} {on} beats the active model's {theirs.map50:.3f}"
    return Decision(good, reason, mine, theirs, round(trivial, 4), round(luck, 4), pictures)


def _luck(mine: NDArray[np.int64], theirs: NDArray[np.int64], seed: int) -> float:
    """The share of random exchanges of answers, picture by picture, with a lead as large: a permutation test."""
    classes = max(mine.shape[1], theirs.shape[1])
    mine, theirs = (np.pad(one, ((0, 0), (0, classes - one.shape[1]), (0, 0))) for one in (mine, theirs))
    lead = map50(mine.sum(0)) - map50(theirs.sum(0))
    rng = np.random.default_rng(seed)
    as_large = 1  # the one that was observed
    for _ in range(SHUFFLES):
        swapped = rng.random(len(mine)) < 0.5
        one, other = np.where(swapped[:, None, None], theirs, mine), np.where(swapped[:, None, None], mine, theirs)
        as_large += map50(one.sum(0)) - map50(other.sum(0)) >= lead - 1e-12
    return as_large / (SHUFFLES + 1)
