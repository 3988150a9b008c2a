"""Whether a tuned SAM 3 may take over (:mod:`training.gate`), by its AP at IoU 0.5."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.gate import Decision, Measured, judge, nothing_to_compare, share_of_luck
from training.sam3.scores import Tally, average_precision

SHUFFLES = 1000
"""Fewer than for answers without scores: each looks at every answer."""


def decide(candidate: Tally, active: Tally, constant: Tally, seed: int = 1337) -> Decision:
    """Compare a new model with the active one and with what needs no learning.

    Args:
        candidate: the new model's answers.
        active: the active model's, on the same pictures and for the same classes.
        constant: answers that do not depend on the picture.
        seed: of the shuffles.
    """
    mine, theirs, trivial = candidate.scores, active.scores, constant.scores.ap50
    if not mine.objects:
        return nothing_to_compare(mine.pictures)
    # what is no better needs no test of luck
    luck = 1.0
    if mine.ap50 > theirs.ap50:
        luck = share_of_luck(Exchanges(candidate, active).lead, mine.pictures, seed, SHUFFLES)
    return judge("AP50", Measured(mine.ap50, mine), Measured(theirs.ap50, theirs), trivial, luck, mine.pictures)


class Exchanges:
    """Two models' answers to the same pictures, ranked once for any exchange between them."""

    def __init__(self, mine: Tally, theirs: Tally) -> None:
        """Rank the answers of both together, class by class."""
        parts = {
            name: np.concatenate([getattr(mine, name), getattr(theirs, name)])
            for name in ("picture", "column", "score", "right")
        }
        own = np.arange(len(parts["picture"])) < len(mine.picture)
        self._classes: list[tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_], int]] = []
        for column in np.flatnonzero(mine.labelled.any(0)):
            rows = np.flatnonzero(parts["column"] == column)
            # equal scores are ranked in the pictures' order, as pycocotools does it
            rows = rows[np.lexsort((parts["picture"][rows], -parts["score"][rows]))]
            labelled = int(mine.labelled[:, column].sum())
            self._classes.append((parts["picture"][rows], parts["right"][rows], own[rows], labelled))

    def lead(self, swapped: NDArray[np.bool_]) -> float:
        """AP50 of the first over that of the second, after answers changed sides.

        Args:
            swapped: (P,) pictures whose answers do.
        """
        leads = []
        for picture, right, own, labelled in self._classes:
            first = own ^ swapped[picture]
            leads.append(average_precision(right[first], labelled) - average_precision(right[~first], labelled))
        return float(np.mean(leads))
