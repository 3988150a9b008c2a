"""The starter segmenter against its network, called by hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from tator_ml.engine.segmenters import load
from tator_ml.engine.segmenters.base import Prompts
from tator_ml.engine.segmenters.starter import StarterSegmenter
from tator_ml.engine.segmenters.starter_model import StarterSam
from tests.adapters.material import (
    Answer,
    answer_of,
    assert_same,
    assert_same_from_disk,
    assert_storable,
    assert_threads_do_not_meet,
    picture,
    prompts_on,
    random_state,
)

SHARPNESS = 0.02  # keeps logits below a hundred


def saved(folder: Path, seed: int) -> Path:
    """Half precision, as the training writes it."""
    path = folder / "starter.safetensors"
    save_file({key: as_written(value) for key, value in random_state(StarterSam(), seed, SHARPNESS).items()}, path)
    return path


def as_written(value: torch.Tensor) -> torch.Tensor:
    return value.half() if value.is_floating_point() else value


def loaded(path: Path) -> StarterSegmenter:
    segmenter = load("starter", str(path), path.parent, "cpu", offline=True)
    assert isinstance(segmenter, StarterSegmenter)
    return segmenter


def network(seed: int) -> StarterSam:
    model = StarterSam().eval()
    state = random_state(model, seed, SHARPNESS)
    model.load_state_dict({key: as_written(value).to(value.dtype) for key, value in state.items()})
    return model


@pytest.mark.parametrize(
    ("seed", "size_wh", "inner_wh"),
    [
        (0, (512, 384), (256, 192)),
        (1, (41, 900), (12, 256)),
        (2, (30, 20), (256, 171)),
        (3, (256, 256), (256, 256)),
    ],
)
@torch.no_grad()
def test_answers_are_those_of_the_network(
    tmp_path: Path, seed: int, size_wh: tuple[int, int], inner_wh: tuple[int, int]
) -> None:
    segmenter, model = loaded(saved(tmp_path, seed)), network(seed)
    image = picture(size_wh)
    embedding = segmenter.encode(image)
    assert_storable(embedding, size_wh)

    growing = max(size_wh) < 256
    scaled = cv2.resize(image, inner_wh, interpolation=cv2.INTER_LINEAR if growing else cv2.INTER_AREA)
    square = np.pad(scaled, ((0, 256 - inner_wh[1]), (0, 256 - inner_wh[0]), (0, 0)))
    features = model.encode(torch.tensor(square).permute(2, 0, 1)[None].float())
    scale = np.array(inner_wh, np.float32) / np.array(size_wh, np.float32)
    for prompts in prompts_on(size_wh).values():
        points = None if prompts.points is None else torch.tensor(prompts.points * scale)
        labels = None if prompts.labels is None else torch.tensor(prompts.labels)
        boxes = None if prompts.boxes is None else torch.tensor(prompts.boxes * np.tile(scale, 2))
        rows = {key: value.repeat(len(prompts), 1, 1, 1) for key, value in features.items()}
        masks, iou = model.decode(rows, points, labels, boxes)
        large = F.interpolate(masks, (256, 256), mode="bilinear")[..., : inner_wh[1], : inner_wh[0]]
        full = F.interpolate(large, size_wh[::-1], mode="bilinear")
        for multimask, which in ((True, slice(1, 4)), (False, slice(0, 1))):
            expected = Answer(full[:, which], iou[:, which], masks[:, which])
            assert_same(answer_of(segmenter, embedding, prompts, multimask), expected)


def test_half_precision_on_disk_gives_the_same_masks(tmp_path: Path) -> None:
    assert_same_from_disk(loaded(saved(tmp_path, 0)), tmp_path)


def test_threads_do_not_meet(tmp_path: Path) -> None:
    assert_threads_do_not_meet(loaded(saved(tmp_path, 0)))


def test_it_is_float32_and_does_not_train(tmp_path: Path) -> None:
    segmenter = loaded(saved(tmp_path, 0))
    assert not segmenter.model.training
    for value in segmenter.model.parameters():
        assert value.dtype == torch.float32
        assert not value.requires_grad
    assert segmenter.version.startswith("starter-")


def test_a_strip_and_an_array_that_is_not_its_own(tmp_path: Path) -> None:
    segmenter = loaded(saved(tmp_path, 0))
    flipped = picture((2000, 2))[:, ::-1]
    flipped.flags.writeable = False
    embedding = segmenter.encode(flipped)
    prompts = Prompts(np.array([[[1000, 1]]], np.float32), np.array([[1]]))
    assert answer_of(segmenter, embedding, prompts, multimask=True).full.shape == (1, 3, 2, 2000)
