"""Pictures, boxes, outlines and exemplars as tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Sam3Processor

from tator_sdk.geometry import Outline
from tests.sam3_training.material import sample
from training.sam3.batches import PADDING, Encoder, rasterised
from training.sam3.phrases import Question
from training.samples import labelled


@pytest.fixture(scope="module")
def processor(base: Path) -> Any:
    return Sam3Processor.from_pretrained(base)


def test_a_batch_is_what_the_processor_makes_in_service(processor: Any) -> None:
    one = sample("1", [("car", (10, 14, 60, 70)), ("bus", (0, 0, 8, 8))], size_wh=(100, 80))
    two = sample("2", [])
    car, bus = one.objects
    questions = [Question("car", (car,)), Question("vehicle", (car, bus))], [Question("green tree", ())]
    batch = Encoder(processor, 56).batch([(one, one.read(), questions[0]), (two, two.read(), questions[1])])
    service = processor(images=[one.read(), two.read()], return_tensors="pt")
    torch.testing.assert_close(batch.asked.pixel_values, service.pixel_values)
    text = processor(text=["car", "vehicle", "green tree"], return_tensors="pt")
    assert torch.equal(batch.asked.input_ids, text.input_ids)
    assert torch.equal(batch.asked.attention_mask, text.attention_mask)
    assert batch.asked.picture.tolist() == [0, 0, 1] and batch.asked.boxes is None
    targets = batch.targets
    assert targets.questions == 3 and targets.question.tolist() == [0, 1, 1]
    assert targets.present.tolist() == [True, True, False] and targets.masks is None
    torch.testing.assert_close(targets.boxes[0], torch.tensor([0.35, 42 / 80, 0.5, 56 / 80]))
    torch.testing.assert_close(targets.boxes[2], torch.tensor([0.04, 0.05, 0.08, 0.1]))


def test_exemplars_are_padded_and_labelled(processor: Any) -> None:
    one = sample("1", [("car", (0, 0, 50, 40))], size_wh=(100, 80))
    shown = Question("visual", one.objects, ((0, 0, 50, 40), (50, 40, 100, 80)), ((0, 40, 50, 80),))
    asked = Encoder(processor, 56).batch([(one, one.read(), [Question("car", one.objects), shown])]).asked
    assert asked.boxes is not None and asked.box_labels is not None
    assert asked.box_labels.tolist() == [[PADDING] * 3, [1, 1, 0]]
    wanted = torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5], [0.25, 0.75, 0.5, 0.5]])
    torch.testing.assert_close(asked.boxes[1], wanted)


def test_masks_of_outlined_objects_only(processor: Any) -> None:
    outlined = sample("1", [("car", (21, 21, 63, 63))], outlined=True).objects[0]
    boxed = sample("1", [("bus", (0, 0, 10, 10))]).objects[0]
    one = sample("1", [])
    question = Question("thing", (outlined, boxed))
    targets = Encoder(processor, 56, mask_side=16).batch([(one, one.read(), [question])]).targets
    assert targets.masks is not None and targets.outlined is not None
    assert targets.masks.shape == (2, 16, 16) and targets.outlined.tolist() == [True, False]
    assert float(targets.masks[0, 4:12, 4:12].mean()) == 1 and float(targets.masks[1].sum()) == 0
    none = Encoder(processor, 56, mask_side=16).batch([(one, one.read(), [Question("thing", ())])]).targets
    assert none.masks is not None and none.masks.shape == (0, 16, 16) and none.boxes.shape == (0, 4)


def test_an_outlines_cells_are_the_share_that_it_covers() -> None:
    outer = np.array([(10, 20), (70, 20), (70, 60), (10, 60)], np.float64)
    hole = np.array([(30, 30), (50, 30), (50, 50), (30, 50)], np.float64)
    cells = rasterised(Outline((outer,), (hole,)), (100, 80), 20)  # cells of 5 by 4 pixels
    truth = np.zeros((80, 100))
    truth[20:60, 10:70] = 1
    truth[30:50, 30:50] = 0
    wanted = truth.reshape(20, 4, 20, 5).mean((1, 3))
    assert np.abs(cells - wanted).max() <= 0.51 and np.abs(cells - wanted).mean() < 0.03
    assert cells.min() == 0 and cells.max() == 1
    beyond = Outline((np.array([(-50, -50), (50, -50), (50, 40), (-50, 40)], np.float64),))
    assert rasterised(beyond, (100, 80), 20)[:10, :10].mean() == pytest.approx(1)


def test_an_island_in_a_hole_is_learned_and_may_have_the_point() -> None:
    outer, hole, island = (np.array([[a, a], [b, a], [b, b], [a, b]], float) for a, b in ((0, 40), (5, 35), (15, 25)))
    outline = Outline((outer, island), (hole,))
    cells = rasterised(outline, (40, 40), 8)
    assert cells[3:5, 3:5].min() == 1 and cells[1, 1:7].max() == 0 and cells[0].min() == 1
    assert labelled("car", outline).point == pytest.approx((20, 20), abs=1)


def test_the_point_of_an_outline_lies_in_its_middle() -> None:
    square = np.array([[10, 10], [50, 10], [50, 50], [10, 50]], float)
    assert labelled("car", Outline((square,))).point == pytest.approx((30, 30), abs=1)
    hook = np.array([[0, 0], [60, 0], [60, 20], [20, 20], [20, 60], [0, 60]], float)
    x, y = labelled("car", Outline((hook,))).point
    assert min(x, y) < 20 and min(x, y, 60 - x, 60 - y) > 8
