"""Held-out pictures: by content, for ever, and never on both sides."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.learning.material import image_name
from training.clip.split import held_out_share, split_by_image

SEED = 42
boxes = st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abcd")), min_size=1, max_size=80)


def sides(drawn: list[tuple[int, str]], share: float = 0.2, fewest: int = 2) -> dict[str, bool]:
    images = [image_name(number) for number, _ in drawn]
    out, _ = split_by_image(images, [label for _, label in drawn], share, SEED, fewest)
    found: dict[str, bool] = {}
    for image, held in zip(images, out.tolist(), strict=True):
        assert found.setdefault(image, held) == held, "a picture on both sides"
    return found


@given(boxes, st.floats(0.05, 0.85), st.integers(1, 4))
def test_no_picture_on_both_sides_and_no_class_without_examples(
    drawn: list[tuple[int, str]], share: float, fewest: int
) -> None:
    found = sides(drawn, share, fewest)
    for label in {label for _, label in drawn}:
        all_of_it = [image_name(number) for number, one in drawn if one == label]
        kept = sum(not found[image] for image in all_of_it)
        assert kept >= min(fewest, len(all_of_it))


@given(boxes, st.randoms(use_true_random=False))
def test_the_order_of_boxes_does_not_matter(drawn: list[tuple[int, str]], random: object) -> None:
    before = sides(drawn)
    random.shuffle(drawn)  # type: ignore[attr-defined]
    assert sides(drawn) == before


def test_new_pictures_move_no_others() -> None:
    rng = np.random.default_rng(0)
    many = [(number, str(rng.choice(list("abc")))) for number in range(400) for _ in range(3)]
    before: dict[str, bool] = {}
    for count in (300, 500, 800, 1200):  # every class is common: nothing goes back
        now = sides(many[:count])
        assert all(now[image] == held for image, held in before.items())
        assert np.mean(list(now.values())) == pytest.approx(0.2, abs=0.1)
        before = now


def test_the_place_is_the_same_in_every_process_and_version() -> None:
    """A changed number here would move held-out pictures of every project into the next training."""
    assert held_out_share(image_name(0), SEED) == pytest.approx(0.9378388084125981, abs=1e-15)
    assert held_out_share(image_name(1), SEED) == pytest.approx(0.8585691251593836, abs=1e-15)
    code = "from training.clip.split import held_out_share as h; print(repr(h('x', 42)))"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True, env={"PYTHONHASHSEED": "7"})
    assert float(printed) == held_out_share("x", SEED)
    assert held_out_share("x", 1) != held_out_share("x", 2)


def test_a_rare_class_goes_back_and_that_is_said() -> None:
    out = [number for number in range(400) if held_out_share(image_name(number), SEED) < 0.2]
    stay = [number for number in range(400) if held_out_share(image_name(number), SEED) >= 0.2][:40]
    labels = {image_name(number): "common" for number in stay} | {
        image_name(out[0]): "rare",
        image_name(out[1]): "rare",
    }
    held, notes = split_by_image(list(labels), list(labels.values()), 0.2, SEED, 2)
    assert not held.any() and len(notes) == 2 and all("'rare'" in note for note in notes)
    labels |= {image_name(number): "common" for number in out[2:9]}
    held, _ = split_by_image(list(labels), list(labels.values()), 0.2, SEED, 2)
    assert [image for image, one in zip(labels, held, strict=True) if one] == [image_name(n) for n in out[2:9]]
    held, notes = split_by_image(list(labels), list(labels.values()), 0.2, SEED, 1)
    assert held.sum() == 8 and len(notes) == 1, "no more go back than are needed"
    back = next(image for image, one in zip(labels, held, strict=True) if not one and labels[image] == "rare")
    assert back == max(map(image_name, out[:2]), key=lambda image: held_out_share(image, SEED)), "nearest the border"


def test_few_pictures() -> None:
    assert sides([(0, "a")]) == {image_name(0): False}
    stay = [number for number in range(60) if held_out_share(image_name(number), SEED) >= 0.2][:6]
    found = sides([(number, "a") for number in stay])
    nearest = min(stay, key=lambda number: held_out_share(image_name(number), SEED))
    assert [image for image, held in found.items() if held] == [image_name(nearest)]
    out = [number for number in range(200) if held_out_share(image_name(number), SEED) < 0.2][:6]
    assert sum(sides([(number, "a") for number in out], fewest=1).values()) == 5
