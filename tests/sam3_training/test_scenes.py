"""Scenes that the benchmark's tiny SAM 3 learns from: the same for ever, and without what is held out."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import sam3_scenes as scenes
from tator_sdk.geometry import iou_xyxy

SEEDS = range(30)


def test_combinations_are_split() -> None:
    assert not set(scenes.TRAINED) & set(scenes.HELD_OUT)
    assert len(scenes.TRAINED) + len(scenes.HELD_OUT) == len(scenes.COLOURS) * len(scenes.SHAPES)
    words = {word for phrase in scenes.TRAINED for word in phrase.split()}
    assert words == {*scenes.COLOURS, *scenes.SHAPES}, "every word of a held-out phrase is learned in another one"


def test_what_is_held_out_is_never_learned_from() -> None:
    shown = {thing.phrase for seed in SEEDS for thing in scenes.scene(seed).things}
    assert shown == set(scenes.TRAINED)


def test_scenes_that_are_asked_about_show_it_beside_what_is_like_it() -> None:
    alike = 0
    for seed in SEEDS:
        first, *others = scenes.scene(seed, held_out=True).things
        assert first.phrase in scenes.HELD_OUT
        alike += any((one.hue == first.hue) != (one.shape == first.shape) for one in others)
    assert alike > len(SEEDS) / 2


def test_a_seed_gives_the_same_scene() -> None:
    scenes.scene.cache_clear()
    first = scenes.scene(7)
    scenes.scene.cache_clear()
    again = scenes.scene(7)
    assert np.array_equal(first.pixels, again.pixels)
    assert [one.box for one in first.things] == [one.box for one in again.things]
    assert not np.array_equal(first.pixels, scenes.scene(8).pixels)


@pytest.mark.parametrize("held_out", [False, True])
def test_boxes_enclose_masks_and_stand_apart(held_out: bool) -> None:
    for seed in SEEDS:
        things = scenes.scene(seed, held_out).things
        assert things
        for number, one in enumerate(things):
            rows, columns = np.nonzero(one.mask)
            seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert np.abs(np.subtract(one.box, seen)).max() <= 2  # a triangle's tip covers half a pixel late
            assert all(iou_xyxy(one.box, other.box) == 0 for other in things[number + 1 :])


def test_objects_are_named_as_a_stage_wants() -> None:
    whole, words, same = (
        scenes.samples(range(1), naming=naming)[0].objects
        for naming in (scenes.by_phrase, scenes.by_word, scenes.as_shape)
    )
    assert [one.label for one in words] == [word for one in whole for word in one.label.split()]
    assert {one.label for one in same} == {"shape"} and len(same) == len(whole)
