"""Clicks while a picture is encoded, on the real networks: between two blocks, and with the same answer as ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from tator_ml.engine.engine import Engine
from tator_ml.engine.messages import Ask, Prompt
from tator_ml.engine.segmenters.base import Pausable, Prompts, Segmenter
from tator_ml.engine.segmenters.half import HalfPrecision
from tator_ml.engine.segmenters.mobile_sam import build
from tator_ml.engine.segmenters.sam1 import Sam1Segmenter
from tator_sdk.settings import Settings
from tests.engine.material import store_of
from tests.wire.conftest import scene_bytes

BLOCKS = 4


def vit(depth: int = BLOCKS) -> Sam1Segmenter:
    torch.manual_seed(3)
    encoder = ImageEncoderViT(img_size=128, patch_size=16, embed_dim=32, depth=depth, num_heads=2, out_chans=32)
    prompts = PromptEncoder(embed_dim=32, image_embedding_size=(8, 8), input_image_size=(128, 128), mask_in_chans=16)
    transformer = TwoWayTransformer(depth=2, embedding_dim=32, mlp_dim=64, num_heads=2)
    decoder = MaskDecoder(transformer_dim=32, transformer=transformer)
    return Sam1Segmenter(Sam(encoder, prompts, decoder).eval(), "vit-tiny")


def mobile() -> Sam1Segmenter:
    torch.manual_seed(3)
    return Sam1Segmenter(build(256).eval(), "mobile-tiny")


@pytest.mark.parametrize(("make", "least"), [(vit, BLOCKS), (mobile, 8)])
def test_encoders_have_parts_that_all_run(make: Callable[[], Sam1Segmenter], least: int) -> None:
    segmenter, ran = make(), []
    assert isinstance(segmenter, Pausable)
    for part in segmenter.parts():
        part.register_forward_pre_hook(lambda *_: ran.append(1))
    segmenter.encode(np.zeros((64, 64, 3), np.uint8))
    assert len(ran) == len(segmenter.parts()) >= least


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_click_on_a_warm_picture_does_not_wait_for_an_encoding(tmp_path: Path, precision: str) -> None:
    segmenter: Segmenter = vit()
    if precision != "float32":
        segmenter = HalfPrecision(segmenter, precision, "cpu")
    store = store_of(tmp_path)
    warm, cold = store.put(scene_bytes()), store.put(scene_bytes(size_wh=(320, 240)))
    engine = Engine(Settings(home=tmp_path), store, segmenter, None)
    begun, clicked, order = threading.Event(), threading.Event(), list[str]()
    last = segmenter.parts()[-1]  # type: ignore[attr-defined]
    try:
        ask = Ask(warm, (Prompt(((256.0, 192.0),), (True,)),), masks=True)
        before = engine.answer(ask)
        first = segmenter.parts()[0]  # type: ignore[attr-defined]
        first.register_forward_hook(lambda *_: begun.set() or (clicked.wait(10) and None))
        for part in segmenter.parts():  # type: ignore[attr-defined]
            part.register_forward_hook(lambda *_: time.sleep(0.1))  # until the click, which waits already, is ready
        last.register_forward_hook(lambda *_: order.append("encoded"))
        decode = segmenter.decode
        segmenter.decode = lambda *asked: order.append("clicked") or decode(*asked)  # type: ignore[method-assign]
        assert engine.warm(cold)
        assert begun.wait(10)
        answers = []
        thread = threading.Thread(target=lambda: answers.append(engine.answer(ask)))
        thread.start()
        while not engine.status().waiting["click"]:
            pass
        clicked.set()
        thread.join(10)
    finally:
        engine.close()
    assert order[0] == "clicked"
    assert answers[0].found == before.found  # autocast of the encoding does not reach the click
    assert engine.status().encodings == 2


def test_half_precision_has_a_version_of_its_own_and_single_precision_tensors() -> None:
    picture = np.random.default_rng(1).integers(0, 255, (96, 128, 3)).astype(np.uint8)
    single = vit()
    half = HalfPrecision(vit(), "bfloat16", "cpu")
    one, other = single.encode(picture), half.encode(picture)
    assert other.model == half.version == "vit-tiny-bfloat16"
    difference = (one.tensors["image_embed"] - other.tensors["image_embed"]).abs().mean()
    assert other.tensors["image_embed"].dtype == torch.float32 and 0 < difference < 0.1
    prompts = Prompts(boxes=np.array([[10, 10, 60, 60]], np.float32))
    assert torch.equal(half.decode(one, prompts, False).low_res, single.decode(one, prompts, False).low_res)
