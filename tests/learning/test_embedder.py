"""Labelled boxes → embeddings: each computed once, a broken picture alone with its boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tator_ml.engine.crops import CropRecipe
from tator_ml.images.decode import ImageError
from tator_ml.learning.embedder import Embedder
from tator_ml.learning.embeddings import EmbeddingCache, ImageBox
from tests.learning.material import AxisComputes, image_name
from training.job import JobCancelled

BOXES = [
    ImageBox(image_name(number % 7), (64.0 * (number % 16), 0, 64.0 * (number % 16) + 30, 30)) for number in range(60)
]
AXES = [number % 16 for number in range(60)]


def test_rows_are_in_the_order_of_the_boxes_and_made_once(tmp_path: Path) -> None:
    computes, cache = AxisComputes(), EmbeddingCache(tmp_path, 2**24)
    embedder = Embedder(computes, cache, "axis", CropRecipe(), batch=16)
    steps: list[tuple[int, int]] = []
    found = embedder.embed(BOXES, watch=lambda done, total: steps.append((done, total)))
    assert found.values.argmax(1).tolist() == AXES and found.made.all() and found.computed == 60
    assert found.values.dtype == np.float32 and found.encoder == "axis-1"
    assert steps[0] == (0, 60) and steps[-1] == (60, 60) and steps == sorted(steps)
    asked = [len(item.xyxy) for ask in computes.asks for item in ask.items]
    assert sum(asked) == 60 and len(asked) == 7, "each picture is asked about once"
    assert all(sum(len(item.xyxy) for item in ask.items) <= 16 for ask in computes.asks)
    computes.asks.clear()
    again = embedder.embed(BOXES[::-1])
    assert not computes.asks and again.computed == 0 and again.values.argmax(1).tolist() == AXES[::-1]
    other = Embedder(computes, cache, "axis", CropRecipe(0.2)).embed(BOXES[:3])
    assert other.computed == 3, "another crop is another embedding"
    cache.close()


def test_without_a_cache_all_are_made_anew() -> None:
    computes = AxisComputes()
    embedder = Embedder(computes, None, "axis", CropRecipe())
    assert [embedder.embed(BOXES).computed for _ in range(2)] == [60, 60]


def test_a_broken_picture_takes_only_its_own_boxes() -> None:
    computes = AxisComputes()
    computes.broken = {image_name(3)}

    def provide(image: str) -> None:
        if image == image_name(5):
            raise ImageError("gone")

    found = Embedder(computes, None, "axis", CropRecipe(), batch=32).embed(BOXES, provide)
    bad = [number for number in range(60) if number % 7 in (3, 5)]
    assert np.flatnonzero(~found.made).tolist() == bad and not found.values[bad].any()
    good = [number for number in range(60) if number not in bad]
    assert found.values[good].argmax(1).tolist() == [AXES[number] for number in good]
    assert found.failed == {image_name(3): "The picture is damaged.", image_name(5): "gone"}


def test_all_broken_and_none_at_all() -> None:
    computes = AxisComputes()
    computes.broken = {image_name(number) for number in range(7)}
    found = Embedder(computes, None, "axis", CropRecipe()).embed(BOXES)
    assert not found.made.any() and len(found.values) == 60 and len(found.failed) == 7
    assert len(Embedder(computes, None, "axis", CropRecipe()).embed([]).values) == 0


def test_what_was_done_when_it_is_stopped_stays_cached(tmp_path: Path) -> None:
    computes, cache = AxisComputes(), EmbeddingCache(tmp_path, 2**24)
    embedder = Embedder(computes, cache, "axis", CropRecipe(), batch=8)

    def watch(done: int, total: int) -> None:
        if done >= 20:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        embedder.embed(BOXES, watch=watch)
    kept = len(cache)
    assert 20 <= kept < 60
    assert embedder.embed(BOXES).computed == 60 - kept
    cache.close()
