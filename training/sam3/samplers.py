"""How often each picture comes, so that rare classes are not lost among common ones.

A class that shows n objects of which the commonest shows m gets the weight

=================  ===========================================================================================
uniform            1
inverse_sqrt       sqrt(m / n)
clipped_inverse    min(m / n, clip)
effective          (1 - b^m) / (1 - b^n), with b for beta: the effective number of samples of Cui et al.,
                   https://arxiv.org/abs/1901.05555
focal              ((1 - n / N) / (1 - m / N))^gamma, N objects in all: the focal loss's factor (Lin et al.,
                   https://arxiv.org/abs/1708.02002) with a class's share for its probability
=================  ===========================================================================================

and a picture that of its rarest class, as in repeat factor sampling (Gupta et al., https://arxiv.org/abs/1908.03195).
A picture without objects counts as one of the commonest class. Pictures come with probabilities in these proportions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tator_sdk.sam3_request import Sam3Training
from training.samples import Sample

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def counted(samples: Sequence[Sample], classes: Sequence[str]) -> Counts:
    """(P, C) objects of each class on each picture."""
    place = {name: column for column, name in enumerate(classes)}
    counts = np.zeros((len(samples), len(classes)), np.int64)
    for row, sample in enumerate(samples):
        for one in sample.objects:
            if one.label in place:
                counts[row, place[one.label]] += 1
    return counts


def class_weights(counts: Counts, request: Sam3Training) -> Floats:
    """(C,) weight of each class by the formulas above; that of the commonest is 1, of one without objects too.

    Args:
        counts: (P, C), see :func:`counted`.
        request: names the formula and its parameter.
    """
    n = counts.sum(0).astype(np.float64)
    m, there = n.max(initial=0.0), n > 0
    n = np.where(there, n, m)
    if request.sampler == "uniform" or not m:
        return np.ones(len(n))
    if request.sampler == "inverse_sqrt":
        return np.sqrt(m / n)
    if request.sampler == "clipped_inverse":
        return np.minimum(m / n, request.sampler_clip)
    if request.sampler == "effective":
        beta = request.sampler_beta
        return np.asarray((1 - beta**m) / (1 - beta**n))
    shares = n / counts.sum()
    rest = np.maximum(1 - shares, 1e-9)  # a class that is alone has all
    return np.asarray((rest / rest[n.argmax()]) ** request.sampler_gamma)


def probabilities(counts: Counts, request: Sam3Training) -> Floats:
    """(P,) how probable each picture is whenever one is drawn."""
    each = np.where(counts > 0, class_weights(counts, request), 0).max(1, initial=0.0)
    each = np.where(each > 0, each, 1.0)
    return np.asarray(each / each.sum())


def frequencies(counts: Counts, chances: Floats) -> Floats:
    """(C,) the share that each class has of the objects that come, on the average."""
    seen = chances @ counts
    return np.asarray(seen / max(seen.sum(), 1e-12))


def limited(chances: Floats, limit: int, seed: int) -> NDArray[np.int64]:
    """Indices of so many pictures, each once, drawn in turn with those chances; all of them for 0.

    However few pictures have most of the weight, there are as many as asked for: the chances are the keys' scale in a
    weighted reservoir (Efraimidis and Spirakis, 2006), not counts that could run out.
    """
    if not limit or limit >= len(chances):
        return np.arange(len(chances))
    keys = np.random.default_rng([seed, 1]).exponential(size=len(chances)) / np.maximum(chances, 1e-300)
    return np.sort(np.argsort(keys, kind="stable")[:limit])


@dataclass(frozen=True, eq=False)
class Sampler:
    """Which picture comes when; that of a number depends on it and the seed alone.

    Attributes:
        chances: (P,) of the pictures.
        seed: see there.
        shuffled: each picture once a round in another order, instead of drawing with the chances.
    """

    chances: Floats
    seed: int
    shuffled: bool

    @classmethod
    def of(cls, counts: Counts, request: Sam3Training) -> Sampler:
        """The sampler of a request for pictures with those counts."""
        return cls(probabilities(counts, request), request.seed, request.sampler == "uniform")

    def picture(self, number: int) -> int:
        """The index of the picture that comes as the number-th, from 0."""
        if self.shuffled:
            turn, place = divmod(number, len(self.chances))
            return int(np.random.default_rng([self.seed, 2, turn]).permutation(len(self.chances))[place])
        drawn = np.random.default_rng([self.seed, 3, number]).random()
        return int(min(np.searchsorted(np.cumsum(self.chances), drawn, "right"), len(self.chances) - 1))
