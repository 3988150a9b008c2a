"""The engine's batch lane for boxes: masks over the wire, one encoding, steps that a click need not wait long for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tator_ml.engine import batch_segment
from tator_ml.engine.batch_segment import FIRST_STEP
from tator_ml.engine.client import EngineClient
from tator_ml.engine.engine import Engine
from tator_ml.engine.masks import MARGIN, BoxMask, SegmentAsk, Segmented
from tator_ml.engine.messages import Ask, Prompt, UnknownImage
from tator_ml.engine.pace import STEP_SECONDS
from tator_ml.engine.segmenters.base import Decoded, Embedding, Prompts
from tator_ml.engine.segmenters.starter import STARTER_WEIGHTS, load
from tator_ml.engine.server import EngineServer
from tator_ml.images.store import ImageStore
from tator_sdk.geometry import iou_of_masks
from tator_sdk.settings import Settings
from tests.wire.conftest import BrightSegmenter, scene_bytes
from training.starter.scenes import draw_scene

BRIGHT, DARK = (192.0, 120.0, 320.0, 264.0), (2.0, 2.0, 60.0, 60.0)


class Slow(BrightSegmenter):
    """As slow as told; keeps the sizes of its batches."""

    def __init__(self, seconds_per_box: float = 0.0) -> None:
        super().__init__()
        self.seconds_per_box = seconds_per_box
        self.batches: list[int] = []

    def decode(self, embedding: Embedding, prompts: Prompts, multimask: bool) -> Decoded:
        self.batches.append(len(prompts))
        time.sleep(self.seconds_per_box * len(prompts))
        return super().decode(embedding, prompts, multimask)


@pytest.fixture
def far(tmp_path: Path) -> Iterator[tuple[EngineClient, Engine, Slow, ImageStore]]:
    """An engine over its socket with a store of its own."""
    settings = Settings(home=tmp_path / "far")
    segmenter = Slow()
    engine = Engine(settings, ImageStore(tmp_path / "far" / "images", 10**9), segmenter, None)
    server = EngineServer(settings, lambda: engine)
    threading.Thread(target=server.serve, daemon=True).start()
    store = ImageStore(tmp_path / "near", 10**9)
    client = EngineClient(settings, store)
    yield client, engine, segmenter, store
    client.close()
    server.close()


def test_all_boxes_of_a_picture_over_the_wire(far: Any) -> None:
    client, engine, segmenter, store = far
    image = store.put(scene_bytes())
    done = client.segment(SegmentAsk(image, (BRIGHT, DARK, BRIGHT)))
    assert done.size_wh == (640, 480) and done.came_from == "encoded" and done.segmenter == segmenter.version
    assert [len(one) for one in done.masks] == [1, 0, 1], "where nothing is seen there is no mask"
    mask = done.masks[0][0].unpack(done.size_wh)
    assert mask.shape == (480, 640) and mask[120:264, 192:320].all() and mask.sum() == 128 * 144
    x, y, width, height = done.masks[0][0].xywh
    assert (x, y, width, height) == (192 - MARGIN, 120 - MARGIN, 128 + 2 * MARGIN, 144 + 2 * MARGIN)
    again = client.segment(SegmentAsk(image, (BRIGHT,) * 9))
    assert again.came_from in {"memory", "disk"} and engine.status().encodings == 1
    assert client.segment(SegmentAsk(image, ())).masks == ()


def test_a_picture_that_nobody_has(far: Any) -> None:
    with pytest.raises(UnknownImage):
        far[1].segment(SegmentAsk("0" * 64, (BRIGHT,)))


def test_steps_are_longer_where_nobody_clicks(tmp_path: Path) -> None:
    segmenter = Slow(0.02)
    store = ImageStore(tmp_path / "images", 10**9)
    engine = Engine(Settings(home=tmp_path), store, segmenter, None)
    try:
        engine.segment(SegmentAsk(store.put(scene_bytes()), (BRIGHT,) * 60))
        assert sum(segmenter.batches) == 60 and FIRST_STEP < max(segmenter.batches) <= STEP_SECONDS / 0.02 + 1
    finally:
        engine.close()


def test_masks_of_large_pictures_are_made_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_segment, "MOST_MASK_BYTES", 640 * 480 * 2)
    segmenter = Slow()
    store = ImageStore(tmp_path / "images", 10**9)
    engine = Engine(Settings(home=tmp_path), store, segmenter, None)
    try:
        image = store.put(scene_bytes())
        assert len(engine.segment(SegmentAsk(image, (BRIGHT,) * 5)).masks) == 5
        assert segmenter.batches == [2, 2, 1]
        segmenter.batches.clear()
        assert len(engine.segment(SegmentAsk(image, (BRIGHT,) * 3, max_results=3)).masks) == 3
        assert segmenter.batches == [1, 1, 1]
    finally:
        engine.close()


def test_steps_are_as_long_as_a_click_may_wait(tmp_path: Path) -> None:
    segmenter = Slow(0.02)
    store = ImageStore(tmp_path / "images", 10**9)
    engine = Engine(Settings(home=tmp_path), store, segmenter, None)
    try:
        image = store.put(scene_bytes())
        engine.answer(Ask(image, (Prompt(box_xyxy=BRIGHT),)))
        segmenter.batches.clear()
        batch = threading.Thread(target=engine.segment, args=(SegmentAsk(image, (BRIGHT,) * 60),))
        batch.start()
        waited = []
        for _ in range(4):
            time.sleep(0.15)
            begun = time.monotonic()
            engine.answer(replace(Ask(image, (Prompt((((256.0, 192.0)),), (True,)),)), classify=False))
            waited.append(time.monotonic() - begun)
        batch.join(20)
        assert sum(segmenter.batches) == 60 + len(waited) and max(segmenter.batches) <= FIRST_STEP
        assert max(waited) < 0.4
    finally:
        engine.close()


def test_the_starter_segmenter_several_masks_and_thresholds(tmp_path: Path) -> None:
    scene = draw_scene(9_700_001)
    store = ImageStore(tmp_path / "images", 10**9)
    engine = Engine(Settings(home=tmp_path), store, load(STARTER_WEIGHTS, "cpu"), None)
    try:
        from tests.segmentation.material import png

        image = store.put(png(scene.image))
        boxes = tuple(tuple(float(edge) for edge in one.xyxy) for one in scene.objects)
        done = engine.segment(SegmentAsk(image, boxes))  # type: ignore[arg-type]
        ious = [
            iou_of_masks(masks[0].unpack(done.size_wh), scene.mask(index)) for index, masks in enumerate(done.masks)
        ]
        assert np.mean(ious) > 0.8
        several = engine.segment(SegmentAsk(image, boxes, max_results=3))  # type: ignore[arg-type]
        assert all(1 <= len(masks) <= 3 for masks in several.masks)
        assert all([one.quality for one in masks] == sorted((one.quality for one in masks), reverse=True)
                   for masks in several.masks)  # fmt: skip
        strict = engine.segment(SegmentAsk(image, boxes, mask_threshold=0.95))  # type: ignore[arg-type]
        areas = [sum(one.part().sum() for masks in each.masks for one in masks) for each in (strict, done)]
        assert areas[0] < areas[1]
    finally:
        engine.close()


def test_masks_travel_unchanged() -> None:
    rng = np.random.default_rng(3)
    masks = [rng.random((33, 47)) > 0.5, np.zeros((33, 47), bool), np.eye(33, 47, dtype=bool)]
    packed = [BoxMask.pack(mask, 0.5) for mask in masks]
    assert packed[1] is None
    rows = ((packed[0], packed[2]), (), (packed[2],))
    back = Segmented.load(*Segmented(rows, (47, 33), "s-1").dump())  # type: ignore[arg-type]
    assert [len(one) for one in back.masks] == [2, 0, 1]
    assert np.array_equal(back.masks[0][0].unpack((47, 33)), masks[0])
    assert np.array_equal(back.masks[2][0].unpack((47, 33)), masks[2])
