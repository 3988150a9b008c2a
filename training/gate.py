"""Whether a tuned model may take over: it must look at the pictures, and be better than the active one.

Both are asked about the same held-out pictures, of which neither has learned. Tuning can make a model worse at finding
things, so being no worse is not enough here, and neither is being better by luck.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SHUFFLES = 2000
CHANCE = 0.05
"""How often luck alone may do as well as a model that is taken."""


class Figures(Protocol):
    """How good a model's answers are."""

    def as_json(self) -> dict[str, Any]:
        """For reports, rounded."""


@dataclass(frozen=True)
class Decision:
    """What the gate says, with the figures that it rests on.

    Attributes:
        activate: whether the model takes over by itself.
        reason: in a sentence.
        candidate, active: figures of both on the same held-out pictures; None where nothing could be compared.
        constant: figure of an answer that never looks at the picture.
        luck: how often a lead as large would come about if both were equally good.
        pictures: that both were asked about.
    """

    activate: bool
    reason: str
    candidate: Figures | None
    active: Figures | None
    constant: float | None
    luck: float | None
    pictures: int

    def as_json(self) -> dict[str, Any]:
        """For reports."""
        return {
            "activate": self.activate,
            "reason": self.reason,
            "candidate": self.candidate.as_json() if self.candidate else None,
            "active": self.active.as_json() if self.active else None,
            "constant": self.constant,
            "luck": self.luck,
            "pictures": self.pictures,
        }


@dataclass(frozen=True)
class Measured:
    """One model on the pictures: the figure that decides, and all of them."""

    figure: float
    figures: Figures


def nothing_to_compare(pictures: int) -> Decision:
    """The decision where no held-out picture shows anything."""
    said = "no held-out picture shows an object that both could be asked for, so they cannot be compared"
    return Decision(False, f"{said}; label more pictures", None, None, None, None, pictures)


def judge(name: str, mine: Measured, theirs: Measured, constant: float, luck: float, pictures: int) -> Decision:
    """Decide.

    Args:
        name: of the figure that decides, more being better.
        mine: the new model.
        theirs: the active one.
        constant: the figure of an answer that never looks at the picture.
        luck: of :func:`share_of_luck`.
        pictures: that both were asked about.
    """
    said = f"its {name} of {mine.figure:.3f} on {pictures} held-out pictures"
    good = False
    if mine.figure <= constant:
        reason = f"{said} does not beat answering the same for every picture"
    elif mine.figure <= theirs.figure:
        reason = f"{said} does not beat the active model's {theirs.figure:.3f}"
    elif luck > CHANCE:
        reason = (
            f"{said} may beat the active model's {theirs.figure:.3f} by luck alone ({luck:.0%} of the cases); label "
            "more pictures"
        )
    else:
        good, reason = True, f"{said} beats the active model's {theirs.figure:.3f}"
    return Decision(good, reason, mine.figures, theirs.figures, round(constant, 4), round(luck, 4), pictures)


def share_of_luck(
    lead: Callable[[NDArray[np.bool_]], float], pictures: int, seed: int, shuffles: int = SHUFFLES
) -> float:
    """The share of random exchanges of answers, picture by picture, with a lead as large: a permutation test.

    Args:
        lead: of one model over the other, after their answers were exchanged on the pictures marked in (P,).
        pictures: P.
        seed: of the exchanges.
        shuffles: how many of them; the observed lead counts as one more.
    """
    observed = lead(np.zeros(pictures, np.bool_))
    rng = np.random.default_rng(seed)
    as_large = 1 + sum(lead(rng.random(pictures) < 0.5) >= observed - 1e-12 for _ in range(shuffles))
    return as_large / (shuffles + 1)
