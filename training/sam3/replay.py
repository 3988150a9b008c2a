"""Batches that were hard come again: optional, and the same for every run with the seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Replay:
    """The batches of the highest loss so far, and which step repeats one.

    A batch is known by its number, from which everything on it can be drawn again.
    """

    def __init__(self, share: float, burn_in: int, kept: int, seed: int, worst: Sequence[Sequence[float]] = ()) -> None:
        """Prepare.

        Args:
            share: of the steps that repeat a batch.
            burn_in: steps before the first of them.
            kept: batches that are remembered.
            seed: of what is drawn.
            worst: :meth:`state` of a training that goes on.
        """
        self._share = share
        self._burn_in = burn_in
        self._kept = kept
        self._seed = seed
        self._worst: dict[int, float] = {int(number): float(loss) for number, loss in worst}

    def batch(self, number: int, step: int) -> int:
        """The number of the batch that comes in place of one.

        Args:
            number: of the batch that would come.
            step: of the optimiser, from 0.
        """
        if not self.repeats(number, step) or not self._worst:
            return number
        rng = np.random.default_rng([self._seed, 5, number])
        return list(self._worst)[int(rng.integers(len(self._worst)))]

    def repeats(self, number: int, step: int) -> bool:
        """Whether a batch's place is one of those for repeats; known before any loss is."""
        if not self._share or step < self._burn_in:
            return False
        return bool(np.random.default_rng([self._seed, 4, number]).random() < self._share)

    def saw(self, number: int, loss: float) -> None:
        """Remember a batch's loss, in place of an earlier one of the same batch."""
        if not self._share:
            return
        self._worst.pop(number, None)
        self._worst[number] = loss
        if len(self._worst) > self._kept:
            del self._worst[min(self._worst, key=lambda one: (self._worst[one], one))]

    def state(self) -> list[list[float]]:
        """For a checkpoint: pairs of number and loss, in their order."""
        return [[number, loss] for number, loss in self._worst.items()]
