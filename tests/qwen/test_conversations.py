"""What is asked and answered: the shares of its kinds, negatives, noise, balance, and the seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tator_ml.vlm.prompts import PromptStyle
from tests.qwen.material import sample, thing
from training.qwen.conversations import Drawing, balanced, draw, fixed, in_order, with_noise
from training.samples import NothingToLearn, split

FOUR = ("car", "bus", "tram", "bike")
SAMPLE = sample("a", [("car", (1.0, 40.0, 20.0, 60.0)), ("bus", (30.0, 5.0, 50.0, 20.0))])
DRAWING = Drawing(PromptStyle("Look closely.", image_type="photograph", extra_context="By night."))


def drawn(count: int, drawing: Drawing = DRAWING, classes: tuple[str, ...] = FOUR) -> list[tuple[str, tuple[str, ...]]]:
    """Kind of output and classes asked for."""
    rng = np.random.default_rng(5)
    found = [draw(SAMPLE, classes, drawing, rng) for _ in range(count)]
    for one in found:
        assert one.asked.items is not None
        assert [obj.label for obj in one.answer] == [name for name in ("bus", "car") if name in one.asked.items]
    return [(one.output, one.asked.items or ()) for one in found]


def test_boxes_and_points_and_all_one_or_some_classes_in_equal_shares() -> None:
    found = drawn(3000)
    assert 0.46 < sum(output == "point" for output, _ in found) / 3000 < 0.54
    sizes = Counter(len(items) for _, items in found)
    assert 0.3 < sizes[1] / 3000 < 0.42  # a third of one class, and the tail of the negatives
    assert sizes[4] / 3000 > 0.3 and sizes[2] and sizes[3]


def test_a_fifth_of_the_partial_questions_is_about_what_is_not_there() -> None:
    absent = [not {"car", "bus"} & set(items) for _, items in drawn(3000) if len(items) < 4]
    assert 0.16 < sum(absent) / len(absent) < 0.26
    none = [not {"car", "bus"} & set(items) for _, items in drawn(500, Drawing(PromptStyle(), negatives=0))]
    assert not any(none)


def test_a_picture_without_objects_is_answered_with_nothing() -> None:
    empty = sample("b", [])
    for seed in range(20):
        assert draw(empty, FOUR, DRAWING, np.random.default_rng(seed)).answer == ()
    assert fixed(empty, FOUR, PromptStyle(), 200).answer == ()


def test_a_set_of_one_class_asks_for_it_always() -> None:
    assert {items for _, items in drawn(50, classes=("car",))} == {("car",)}


def test_the_style_is_part_of_the_question_and_only_the_system_prompt_gets_noise() -> None:
    rng = np.random.default_rng(0)
    found = [draw(SAMPLE, FOUR, DRAWING, rng).asked for _ in range(200)]
    assert all("photograph" in one.user and "By night." in one.user for one in found)
    assert len({one.system for one in found}) > 30 and "Look closely." in {one.system for one in found}


@given(st.text(max_size=200), st.floats(0, 0.3), st.integers(0, 99))
def test_noise_drops_characters_and_changes_none(text: str, share: float, seed: int) -> None:
    noisy = iter(with_noise(text, share, np.random.default_rng(seed)))
    rest = iter(text)
    assert all(any(one == other for other in rest) for one in noisy)  # a subsequence


def test_noise_drops_the_share_that_was_asked_for() -> None:
    kept = len(with_noise("x" * 100_000, 0.05, np.random.default_rng(0)))
    assert 0.948 < kept / 100_000 < 0.952 and with_noise("abc", 0, np.random.default_rng(0)) == "abc"


def test_many_objects_are_cut_to_the_limit_with_all_classes_alike() -> None:
    crowd = [thing("car", n, 0, n + 1, 1) for n in range(500)] + [thing("bus", 0, n, 1, n + 1) for n in range(30)]
    counts = Counter(one.label for one in balanced(crowd, 200, np.random.default_rng(0)))
    assert counts == {"bus": 30, "car": 170}
    assert len(balanced(crowd, 1, np.random.default_rng(0))) == 1
    assert balanced(crowd[:5], 5, np.random.default_rng(0)) == crowd[:5]


def test_objects_are_named_from_top_to_bottom() -> None:
    one, other, third = thing("car", 5, 9, 20, 30), thing("car", 30, 2, 40, 9), thing("bus", 0, 2, 9, 9)
    assert in_order([one, other, third]) == (third, other, one)


def test_the_same_seed_draws_the_same() -> None:
    one, other = (draw(SAMPLE, FOUR, DRAWING, np.random.default_rng([1, 2, 3])) for _ in range(2))
    assert one == other


def test_held_out_are_the_same_pictures_however_many_come_to_them() -> None:
    many = [sample(f"{n}", [("car", (0.0, 0.0, 9.0, 9.0))]) for n in range(100)]
    few = split(many[:50], FOUR, 0.2, 1337, "")
    all_ = split(many, FOUR, 0.2, 1337, "")
    assert {one.image for one in few.held_out} <= {one.image for one in all_.held_out}
    assert 10 <= len(all_.held_out) <= 30 and len(all_.train) + len(all_.held_out) == 100
    two = split(many[:2], FOUR, 0.2, 1337, "")
    assert len(two.train) == len(two.held_out) == 1


def test_too_little_is_said() -> None:
    with pytest.raises(NothingToLearn, match="0 labelled objects in 3 pictures"):
        split([sample(f"{n}", []) for n in range(3)], FOUR, 0.2, 0, "")
    with pytest.raises(NothingToLearn, match="in 1 pictures"):
        split([SAMPLE], FOUR, 0.2, 0, "")
