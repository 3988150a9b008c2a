"""Whether a tuned Qwen may take over (:mod:`training.gate`), by its mAP at IoU 0.5."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.gate import Decision, Measured, judge, nothing_to_compare, share_of_luck
from training.qwen.scores import Tally, map50, score


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
        return nothing_to_compare(pictures)
    mine, theirs = score(candidate), score(active)
    luck = _luck(candidate.counts, active.counts, seed)
    constant_map50 = score(constant).map50
    return judge(
        "mAP@0.5", Measured(mine.map50, mine), Measured(theirs.map50, theirs), constant_map50, luck, pictures
    )  # fmt: skip


def _luck(mine: NDArray[np.int64], theirs: NDArray[np.int64], seed: int) -> float:
    classes = max(mine.shape[1], theirs.shape[1])
    mine, theirs = (np.pad(one, ((0, 0), (0, classes - one.shape[1]), (0, 0))) for one in (mine, theirs))

    def lead(swapped: NDArray[np.bool_]) -> float:
        marked = swapped[:, None, None]
        one, other = np.where(marked, theirs, mine), np.where(marked, mine, theirs)
        return float(map50(one.sum(0)) - map50(other.sum(0)))

    return share_of_luck(lead, len(mine), seed)
