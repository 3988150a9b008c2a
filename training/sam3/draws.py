"""The samples of a whole training, by number: what comes when is settled before the first step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tator_sdk.images import ImageError
from tator_sdk.sam3_request import Sam3Training
from training.sam3.batches import Batch, Encoder
from training.sam3.phrases import Phrases, Question, draw
from training.sam3.samplers import Sampler
from training.samples import NothingToLearn, Sample


@dataclass(frozen=True)
class Plan:
    """How many steps there are.

    Attributes:
        each: pictures in a step of the optimiser, those of all processes together.
        steps: in all.
        round: steps in one round over the pictures.
        evaluate_every: steps.
    """

    each: int
    steps: int
    round: int
    evaluate_every: int

    @classmethod
    def of(cls, request: Sam3Training, pictures: int, processes: int = 1) -> Plan:
        """The plan for a request."""
        each = request.batch * request.accumulate * processes
        steps = max(1, math.ceil(pictures * request.epochs / each))
        round_ = max(1, math.ceil(pictures / each))
        return cls(each, min(steps, request.most_steps or steps), round_, request.evaluate_every or round_)


@dataclass(frozen=True, eq=False)
class Draws:
    """All batches of a training by number; each is drawn from the seed and its number alone.

    Attributes:
        pictures: to learn from.
        phrases: of the classes.
        sampler: which picture comes when.
        encoder: makes tensors.
        request: how questions are drawn.
        log: told of pictures that cannot be read; hours of training are not lost to one.
    """

    pictures: tuple[Sample, ...]
    phrases: Phrases
    sampler: Sampler
    encoder: Encoder
    request: Sam3Training
    log: Callable[[str], None]

    def batch(self, number: int) -> Batch:
        """The batch of a number, from 0."""
        first = number * self.request.batch
        return self.encoder.batch([self._picture(one) for one in range(first, first + self.request.batch)])

    def _picture(self, number: int) -> tuple[Sample, NDArray[np.uint8], tuple[Question, ...]]:
        for further in range(len(self.pictures)):
            sample = self.pictures[self.sampler.picture(number + further)]
            try:
                pixels = sample.read()
            except ImageError as error:  # the next one takes its place
                self.log(f"left out: {error}")
                continue
            rng = np.random.default_rng([self.request.seed, 6, number])
            return sample, pixels, draw(sample, self.phrases, self.request, rng)
        raise NothingToLearn("None of the pictures can be read any more; see the job's log.")
