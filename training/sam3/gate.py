"""Whether a tuned SAM 3 may take over (:mod:`training.gate`), by its AP at IoU 0.5."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.gate import Decision, Measured, judge, nothing_to_compare, share_of_luck
from training.sam3.scores import Tally, ap50, exchanged, score

SHUFFLES = 1000
"""Fewer than for answers without scores: each ranks all answers anew."""


def decide(candidate: Tally, active: Tally, constant: Tally, seed: int = 1337) -> Decision:
    """Compare a new model with the active one and with what needs no learning.

    Args:
        candidate: the new model's answers.
        active: the active model's, on the same pictures.
        constant: answers that do not depend on the picture.
        seed: of the shuffles.
    """
    mine, theirs = score(candidate), score(active)
    if not mine.objects:
        return nothing_to_compare(mine.pictures)

    def lead(swapped: NDArray[np.bool_]) -> float:
        one, other = exchanged(candidate, active, swapped)
        return ap50(one) - ap50(other)

    # where it loses anyway, luck needs no test
    luck = share_of_luck(lead, mine.pictures, seed, SHUFFLES) if mine.ap50 > theirs.ap50 else 1.0
    return judge("AP50", Measured(mine.ap50, mine), Measured(theirs.ap50, theirs), ap50(constant), luck, mine.pictures)
