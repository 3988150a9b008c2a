"""A tiny SAM 3's first weights: its queries stand on a grid, and their attention looks at their boxes' edges."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from training.sam3.tiny import Shape, make_model, make_tokenizer
from training.sam3.tiny_start import BOX_SIDE, prepare

SHAPE = Shape(side=128, patch=8, vision_hidden=32, vision_layers=1, window=16, hidden=80, layers=1, queries=11)


@pytest.fixture(scope="module")
def detector() -> Any:
    torch.manual_seed(0)
    found = make_model(make_tokenizer(["red circle"], SHAPE.tokens), SHAPE).detector_model
    prepare(found)
    return found


def test_queries_stand_on_the_largest_grid(detector: Any) -> None:
    boxes = detector.detr_decoder.reference_points.weight.detach().sigmoid()[:9]
    places = {(round(x, 3), round(y, 3)) for x, y, _, _ in boxes.tolist()}
    assert places == {(x, y) for x in (0.167, 0.5, 0.833) for y in (0.167, 0.5, 0.833)}
    assert torch.allclose(boxes[:, 2:], torch.tensor(BOX_SIDE))


@torch.no_grad()
def test_each_head_looks_at_an_edge_or_inside(detector: Any) -> None:
    box = torch.tensor([[[0.5, 0.5, 0.5, 0.5]]])  # from a quarter to three quarters of the picture
    grid = (torch.tensor(SHAPE.grid), torch.tensor(SHAPE.grid))
    looks = detector.detr_decoder._get_rpb_matrix(box, grid)[0, :, 0].view(-1, SHAPE.grid, SHAPE.grid)
    weights = looks.flatten(1).softmax(1).view_as(looks)
    middles = (torch.arange(SHAPE.grid) + 0.5) / SHAPE.grid
    x, y = weights.sum(1) @ middles, weights.sum(2) @ middles
    left, right, top, bottom, inside = range(5)
    assert x[left] < x[inside] - 0.1 and x[right] > x[inside] + 0.1
    assert y[top] < y[inside] - 0.1 and y[bottom] > y[inside] + 0.1
    within = (middles > 0.25) & (middles < 0.75)
    assert float(weights[inside][within][:, within].sum()) > 0.5, "twice as much as on a like area elsewhere"


def test_places_of_patches_differ(detector: Any) -> None:
    positions = detector.vision_encoder.backbone.embeddings.position_embeddings[0]
    apart = torch.cdist(positions, positions) + torch.eye(len(positions)) * 1e3
    assert float(apart.min().detach()) > 0.1


def test_the_segmentation_head_stays_as_it_was() -> None:
    torch.manual_seed(0)
    plain = make_model(make_tokenizer(["red circle"], SHAPE.tokens), SHAPE).detector_model
    before = {name: one.clone() for name, one in plain.mask_decoder.state_dict().items()}
    prepare(plain)
    assert all(torch.equal(one, before[name]) for name, one in plain.mask_decoder.state_dict().items())
