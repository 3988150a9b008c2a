"""The crop recipe: nothing of an object is lost or stretched, whatever the box."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tator_ml.engine.crops import FILL_RGB, CropRecipe, crop

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
anywhere = st.floats(-500, 500, allow_nan=False)


def picture(width: int, height: int, rgb: tuple[int, int, int]) -> np.ndarray:
    return np.full((height, width, 3), rgb, np.uint8)


def is_color(pixels: np.ndarray, rgb: tuple[int, int, int], tolerance: int = 40) -> np.ndarray:
    return (np.abs(pixels.astype(int) - rgb) <= tolerance).all(-1)


@given(
    st.tuples(anywhere, anywhere, anywhere, anywhere),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.integers(1, 40),
    st.floats(0, 1),
    st.booleans(),
)
def test_any_box_gives_a_crop_that_shows_some_of_the_picture(xyxy, size_wh, size, margin, square):
    image = picture(*size_wh, RED)
    before = image.copy()
    cut = crop(image, xyxy, size, margin, square)
    assert cut.shape == (size, size, 3) and cut.dtype == np.uint8 and cut.flags.c_contiguous
    from_picture = (cut == RED).all(-1)
    assert from_picture.any(), "a degenerate box was not widened to a pixel of the picture"
    assert (from_picture | (cut == FILL_RGB).all(-1)).all()
    assert (image == before).all()


@given(arrays(np.uint8, (20, 30, 3)), st.integers(0, 29), st.integers(0, 19), st.integers(1, 30))
def test_an_exact_crop_at_its_own_size_is_the_slice(image, x, y, side):
    side = min(side, 30 - x, 20 - y)
    if side:
        cut = crop(image, (x, y, x + side, y + side), side, square=False)
        assert (cut == image[y : y + side, x : x + side]).all()


@given(st.integers(2, 20), st.integers(2, 20), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_mirrored_pictures_have_mirrored_crops(x, y, half_width, half_height, square):
    """Even sides and no margin, so that rounding has nothing to decide."""
    image = np.random.default_rng(3).integers(0, 256, (64, 64, 3), np.uint8)
    box = (x, y, x + 2 * half_width, y + 2 * half_height)
    mirrored = (64 - box[2], y, 64 - box[0], box[3])
    there = crop(image, box, 32, 0, square).astype(int)
    back = crop(np.ascontiguousarray(image[:, ::-1]), mirrored, 32, 0, square)[:, ::-1].astype(int)
    assert np.abs(there - back).max() <= 1


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("vertical", [True, False])
@pytest.mark.parametrize("scale", [1, 8])
def test_both_ends_of_a_long_object_are_kept(square, vertical, scale):
    image = picture(100 * scale, 100 * scale, WHITE)
    bar = image[45 * scale : 55 * scale, 2 * scale : 98 * scale]
    bar[:, : 8 * scale], bar[:, -8 * scale :] = RED, BLUE
    box = (2 * scale, 45 * scale, 98 * scale, 55 * scale)
    if vertical:
        image, box = np.ascontiguousarray(image.transpose(1, 0, 2)), (box[1], box[0], box[3], box[2])
    cut = crop(image, box, 64, square=square)
    reds, blues = (np.argwhere(is_color(cut, rgb)) for rgb in (RED, BLUE))
    along = 0 if vertical else 1
    free = 0.08 / 1.16 * 64 if square else 0
    assert reds[:, along].min() == pytest.approx(free, abs=1.5)
    assert blues[:, along].max() == pytest.approx(63 - free, abs=1.5)
    across = np.ptp(reds[:, 1 - along]) + 1  # 10 of 96 pixels: not stretched
    assert across == pytest.approx(10 / 96 * (64 - 2 * free), abs=1.6)


def test_a_square_crop_shows_the_surroundings_and_an_exact_one_does_not():
    image = picture(60, 60, BLUE)
    image[25:35, 10:50] = RED
    around, alone = (crop(image, (10, 25, 50, 35), 40, square=square) for square in (True, False))
    assert is_color(around, BLUE).mean() > 0.7 and not (around == FILL_RGB).all(-1).any()
    assert not is_color(alone, BLUE).any()
    assert (alone == RED).all(-1).mean() == pytest.approx(0.25)
    assert (alone == FILL_RGB).all(-1).mean() == pytest.approx(0.75)


def test_beyond_the_picture_is_fill():
    cut = crop(picture(40, 40, RED), (0, 0, 40, 40), 50, margin=0.125)
    assert (cut[5:45, 5:45] == RED).all()
    assert (cut[:4] == FILL_RGB).all() and (cut[:, 46:] == FILL_RGB).all()


def test_shrinking_averages_and_does_not_sample():
    lines = picture(256, 256, (0, 0, 0))
    lines[:, ::4] = 255  # a quarter is white; sampling every fourth pixel would see all or nothing
    assert crop(lines, (0, 0, 256, 256), 64, margin=0).mean() == pytest.approx(64, abs=1)


def test_memory_follows_the_picture_not_the_window():
    assert crop(picture(60_000, 2, RED), (0, 0, 60_000, 2), 64).shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("image", "box"),
    [
        (np.zeros((0, 5, 3), np.uint8), (0, 0, 1, 1)),
        (np.zeros((5, 5), np.uint8), (0, 0, 1, 1)),
        (np.zeros((5, 5, 4), np.uint8), (0, 0, 1, 1)),
        (np.zeros((5, 5, 3), np.float32), (0, 0, 1, 1)),
        (np.zeros((5, 5, 3), np.uint8), (0, 0, float("nan"), 1)),
        (np.zeros((5, 5, 3), np.uint8), (0, 0, float("inf"), 1)),
    ],
)
def test_what_cannot_be_cropped_is_refused(image, box):
    with pytest.raises(ValueError, match=r"A (crop needs|box has)"):
        crop(image, box, 8)


def test_recipes_of_equal_key_give_equal_crops():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    box = (7.4, 3.2, 31.0, 22.9)
    recipes = [CropRecipe(), CropRecipe(0.2), CropRecipe(0.0), CropRecipe(0.3, False), CropRecipe(0.0, False)]
    assert [recipe.key for recipe in recipes] == ["square-0.08", "square-0.2", "square-0", "exact", "exact"]
    cuts = {recipe: recipe.crop(image, box, 24) for recipe in recipes}
    for one, cut in cuts.items():
        for other, another in cuts.items():
            assert (cut == another).all() == (one.key == other.key)


@pytest.mark.parametrize("margin", [-0.1, 1.5, float("nan")])
def test_a_recipe_refuses_a_senseless_margin(margin):
    with pytest.raises(ValueError, match="margin"):
        CropRecipe(margin)
