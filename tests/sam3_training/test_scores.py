"""Figures are COCO's, and what each picture adds can be put together anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from training.sam3.scores import Tally, average_precision, tally

BOX = (0.0, 0.0, 10.0, 10.0)
CLASSES = ("car", "bus")


def noisy(seed: int, pictures: int = 30, noise: float = 2.0) -> tuple[list[Any], list[Any]]:
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for _ in range(pictures):
        labels = [
            (str(rng.choice(CLASSES)), (float(x), float(y), float(x + w), float(y + h)))
            for x, y, w, h in rng.uniform([0, 0, 8, 8], [60, 60, 30, 30], (rng.integers(0, 4), 4))
        ]
        answers = [
            (name, float(rng.random()), tuple((np.array(box) + rng.normal(0, noise, 4)).tolist()))
            for name, box in labels
            if rng.random() < 0.8
        ] + [(str(rng.choice(CLASSES)), float(rng.random()) * 0.7, (1.0, 2.0, 20.0, 30.0)) for _ in range(2)]
        truth.append(labels)
        found.append(answers)
    return truth, found


def ap50(one: Tally) -> float:
    """Put together anew from what each picture adds."""
    figures = []
    for column in np.flatnonzero(one.labelled.any(0)):
        mine = one.column == column
        order = np.argsort(-one.score[mine], kind="mergesort")
        figures.append(average_precision(one.right[mine][order], int(one.labelled[:, column].sum())))
    return float(np.mean(figures)) if figures else 0.0


def test_a_right_answer_counts_one_and_a_wrong_one_before_it_halves_it() -> None:
    right = tally([[("car", BOX)]], [[("car", 0.9, BOX)]], CLASSES).scores
    assert (right.ap, right.ap50, right.ap75, right.ar) == pytest.approx(
        (1, 1, 1, 1)
    ) and right.per_class == pytest.approx({"car": 1.0})
    other = (50.0, 50.0, 60.0, 60.0)
    before = tally([[("car", BOX)], []], [[("car", 0.5, BOX)], [("car", 0.9, other)]], CLASSES).scores
    after = tally([[("car", BOX)], []], [[("car", 0.5, BOX)], [("car", 0.1, other)]], CLASSES).scores
    assert (
        before.ap50 == pytest.approx(0.5)
        and after.ap50 == pytest.approx(1)
        and (before.pictures, before.objects) == (2, 1)
    )
    loose = tally([[("car", BOX)]], [[("car", 0.9, (0, 0, 10, 6))]], CLASSES).scores  # IoU 0.6
    assert loose.ap50 == pytest.approx(1) and loose.ap75 == 0 and loose.ap == pytest.approx(0.3) == loose.ar


def test_nothing_answered_and_nothing_labelled() -> None:
    assert tally([[("car", BOX)]], [[]], CLASSES).scores.as_json()["per_class"] == {"car": 0.0}
    assert ap50(tally([[("car", BOX)]], [[]], CLASSES)) == 0
    nothing = tally([[]], [[("car", 0.9, BOX)]], CLASSES)
    assert nothing.scores.ap50 == ap50(nothing) == 0 and nothing.scores.objects == 0


@pytest.mark.parametrize("seed", range(5))
def test_what_pictures_add_gives_the_same_figure(seed: int) -> None:
    one = tally(*noisy(seed), CLASSES)
    assert 0.2 < one.scores.ap50 < 0.95 and ap50(one) == pytest.approx(one.scores.ap50, abs=1e-9)
