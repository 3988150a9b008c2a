"""The samples of a whole training, by number: what comes when is settled before the first step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset

from tator_sdk.images import ImageError
from tator_sdk.qwen_request import QwenTraining
from training.qwen.collate import Encoder, Tensors
from training.qwen.conversations import Conversation, Drawing, draw
from training.samples import NothingToLearn, Samples


@dataclass(frozen=True)
class Plan:
    """How many steps there are.

    Attributes:
        each: samples in a step of the optimiser.
        steps: in all.
        round: steps in one round over the pictures.
        evaluate_every: steps.
    """

    each: int
    steps: int
    round: int
    evaluate_every: int

    @classmethod
    def of(cls, request: QwenTraining, samples: Samples) -> Plan:
        """The plan for a request."""
        each = request.batch * request.accumulate
        round_ = max(1, math.ceil(len(samples.train) / each))
        return cls(each, round_ * request.epochs, round_, request.evaluate_every or round_)


class Draws(Dataset[Tensors]):
    """All samples of a training by number; each is drawn from the seed and its number alone."""

    def __init__(
        self,
        samples: Samples,
        drawing: Drawing,
        encoder: Encoder,
        seed: int,
        count: int,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._samples = samples
        self._drawing = drawing
        self._encoder = encoder
        self._seed = seed
        self._count = count
        self._log = log
        self._told: set[str] = set()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Tensors:
        for following in range(number, number + len(self._samples.train)):
            try:
                return self._encoder.encode(self.conversation(following))
            except ImageError as error:  # the next one takes its place; hours of training are not lost to it
                if str(error) not in self._told:
                    self._told.add(str(error))
                    self._log(f"left out: {error}")
        raise NothingToLearn("None of the pictures can be read any more; see the job's log.")

    def conversation(self, number: int) -> Conversation:
        """The question of a number, about the pictures in an order that is another one in each round."""
        pictures = self._samples.train
        turn, place = divmod(number, len(pictures))
        order = np.random.default_rng([self._seed, turn]).permutation(len(pictures))
        rng = np.random.default_rng([self._seed, turn, place])
        return draw(pictures[order[place]], self._samples.classes, self._drawing, rng)
