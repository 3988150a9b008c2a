"""How often pictures come: every sampler by its formula, the same in every run, and few pictures of many."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from tator_sdk.sam3_request import Sam3Training
from tests.sam3_training.material import request, sample
from training.sam3.samplers import Sampler, class_weights, counted, frequencies, limited, probabilities

COUNTS = np.array([[1, 0]] * 100 + [[0, 1]] * 2)
DRAWN = 10_000

BY_HAND = {
    "uniform": 1.0,
    "inverse_sqrt": 50**0.5,
    "clipped_inverse": 10.0,
    "effective": (1 - 0.99**100) / (1 - 0.99**2),
    "focal": ((100 / 102) / (2 / 102)) ** 2,
}
"""Weight of the rare class over that of the common one."""


def wanted(sampler: str, **changes: object) -> Sam3Training:
    return request(sampler=sampler, sampler_beta=0.99, **changes)


@pytest.mark.parametrize("sampler", BY_HAND)
def test_classes_come_as_often_as_the_formula_says(sampler: str) -> None:
    asked = wanted(sampler)
    assert class_weights(COUNTS, asked) == pytest.approx([1, BY_HAND[sampler]])
    share = 2 * BY_HAND[sampler] / (100 + 2 * BY_HAND[sampler])
    chances = probabilities(COUNTS, asked)
    assert frequencies(COUNTS, chances) == pytest.approx([1 - share, share])
    drawing = Sampler.of(COUNTS, asked)
    count = 102 * 20 if sampler == "uniform" else DRAWN  # whole rounds
    seen = np.bincount([int(COUNTS[drawing.picture(number), 1]) for number in range(count)], minlength=2)
    if sampler == "uniform":
        assert seen.tolist() == [2000, 40]
    else:
        assert chisquare(seen, count * np.array([1 - share, share])).pvalue > 0.001


def test_the_picture_of_a_number_depends_on_it_and_the_seed_alone() -> None:
    for sampler in BY_HAND:
        one, again = (Sampler.of(COUNTS, wanted(sampler)) for _ in range(2))
        order = [one.picture(number) for number in range(300)]
        assert [again.picture(number) for number in reversed(range(300))] == order[::-1]
        assert [Sampler.of(COUNTS, wanted(sampler, seed=1)).picture(n) for n in range(300)] != order


def test_uniform_shows_each_picture_once_a_round() -> None:
    drawing = Sampler.of(COUNTS, wanted("uniform"))
    first, second = ([drawing.picture(turn * 102 + n) for n in range(102)] for turn in range(2))
    assert sorted(first) == sorted(second) == list(range(102)) and first != second


@pytest.mark.parametrize("sampler", BY_HAND)
def test_a_limited_training_has_its_pictures_whatever_the_sampler(sampler: str) -> None:
    """Which crashed the original: few pictures had almost all of the weight, and it asked for more of them."""
    chances = probabilities(COUNTS, wanted(sampler))
    for limit in (1, 3, 50, 101):
        chosen = limited(chances, limit, seed=7)
        assert len(chosen) == len(set(chosen.tolist())) == limit
        assert chosen.tolist() == limited(chances, limit, seed=7).tolist()
        assert Sampler.of(COUNTS[chosen], wanted(sampler)).picture(5) < limit
    assert limited(chances, 0, 7).tolist() == limited(chances, 5000, 7).tolist() == list(range(102))
    one_has_all = np.array([1.0] + [0.0] * 9)
    assert len(limited(one_has_all, 5, 0)) == 5 and 0 in limited(one_has_all, 1, 0)


def test_few_of_many_are_drawn_with_the_samplers_chances() -> None:
    chances = probabilities(COUNTS, wanted("focal"))
    rare = np.mean([COUNTS[limited(chances, 2, seed)][:, 1].sum() for seed in range(50)])
    even = np.mean([COUNTS[limited(np.full(102, 1 / 102), 2, seed)][:, 1].sum() for seed in range(50)])
    assert rare > 1.5 and even < 0.3


def test_a_picture_counts_as_its_rarest_class_and_an_empty_one_as_the_commonest() -> None:
    counts = np.array([[3, 0, 0], [3, 1, 0], [2, 0, 0], [0, 0, 0]])  # nothing is labelled as the last class
    chances = probabilities(counts, request(sampler="inverse_sqrt"))
    assert chances / chances[0] == pytest.approx([1, 8**0.5, 1, 1])
    assert probabilities(np.zeros((3, 2), np.int64), request(sampler="focal")) == pytest.approx([1 / 3] * 3)


def test_objects_are_counted_by_picture_and_class() -> None:
    pictures = [sample("1", [("car", (0, 0, 5, 5)), ("car", (5, 5, 9, 9)), ("bus", (1, 1, 2, 2))]), sample("2", [])]
    assert counted(pictures, ("bus", "car")).tolist() == [[1, 2], [0, 0]]
