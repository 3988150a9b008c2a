"""The gate: neither luck, nor the commonest class, nor a worse head takes over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from training.clip.gate import decide

NAMES = list("abcd")
RNG = np.random.default_rng(0)
TRUTH = [str(name) for name in RNG.choice(NAMES, 200, p=[0.4, 0.3, 0.2, 0.1])]


def noisy(share: float, seed: int = 1) -> list[str]:
    """Right but for a share of the boxes."""
    rng = np.random.default_rng(seed)
    return [str(rng.choice(NAMES)) if rng.random() < share else name for name in TRUTH]


def test_a_first_head_that_knows_something_is_taken() -> None:
    found = decide(TRUTH, noisy(0.2), None, TRUTH, 60)
    assert found.activate and found.active is None and found.boxes == 200 and found.images == 60
    assert found.candidate is not None and found.luck is not None and found.candidate > found.luck


@pytest.mark.parametrize("seed", range(8))
def test_shuffled_labels_are_not_taken(seed: int) -> None:
    shuffled = [str(name) for name in np.random.default_rng(seed).permutation(TRUTH)]
    found = decide(TRUTH, shuffled, None, TRUTH, 60)
    assert not found.activate and "luck" in found.reason


def test_a_few_boxes_prove_nothing() -> None:
    found = decide(["a", "b", "a"], ["a", "b", "a"], None, ["a", "b"], 3)
    assert not found.activate and found.candidate == 1 and "luck" in found.reason


def test_who_always_says_the_commonest_class_is_not_taken() -> None:
    found = decide(TRUTH, ["a"] * 200, None, TRUTH, 60)
    assert not found.activate and found.candidate == found.majority and "commonest" in found.reason


@pytest.mark.parametrize(("mine", "theirs", "taken"), [(0.3, 0.1, False), (0.2, 0.2, True), (0.1, 0.3, True)])
def test_a_worse_head_than_the_active_one_is_not_taken(mine: float, theirs: float, taken: bool) -> None:
    found = decide(TRUTH, noisy(mine), noisy(theirs), TRUTH, 60)
    assert found.activate == taken and found.active is not None
    assert ("is lower" in found.reason) == (not taken) and f"{found.active:.3f}" in found.reason


def test_one_box_decides() -> None:
    worse = noisy(0.2)
    better = list(worse)
    better[next(row for row in range(200) if worse[row] != TRUTH[row])] = TRUTH[
        next(row for row in range(200) if worse[row] != TRUTH[row])
    ]
    assert not decide(TRUTH, worse, better, TRUTH, 60).activate
    assert decide(TRUTH, better, worse, TRUTH, 60).activate


@pytest.mark.parametrize("active", [None, []])
def test_without_held_out_boxes_nothing_is_taken(active: Any) -> None:
    found = decide([], [], active, TRUTH, 0)
    assert not found.activate and found.candidate is None and "held out" in found.reason


def test_classes_that_only_one_side_knows() -> None:
    """The active head names a class that is gone, the new one has one that no held-out box shows."""
    found = decide(TRUTH, noisy(0.1), ["gone"] * 200, [*TRUTH, "new"], 60)
    assert found.activate and found.active == 0


def test_figures_are_json_and_the_same_each_time() -> None:
    one, other = (decide(TRUTH, noisy(0.3), noisy(0.3, 2), TRUTH, 60).as_json() for _ in range(2))
    assert one == other and set(one) >= {"activate", "reason", "candidate", "active", "majority", "luck"}
