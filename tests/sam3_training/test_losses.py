"""Each loss against the same written out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from training.sam3.forward import Layers
from training.sam3.losses import Targets, Weights, loss, mask_losses, presence_loss, score_loss, set_losses
from training.sam3.matcher import Costs, Matches

BOX = (0.3, 0.5, 0.2, 0.2)
"""From 0.2 to 0.4, and from 0.4 to 0.6."""
SHIFTED = (0.4, 0.5, 0.2, 0.4)
"""From 0.3 to 0.5, and from 0.3 to 0.7: shares 0.1 by 0.2 with BOX."""
IOU = 0.02 / (0.04 + 0.08 - 0.02)
HULL = 0.3 * 0.4
GIOU = IOU - (HULL - 0.1) / HULL


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def cross(logit: float, wanted: float) -> float:
    return -wanted * math.log(sigmoid(logit)) - (1 - wanted) * math.log(1 - sigmoid(logit))


def pairs(*found: tuple[int, int, int]) -> Matches:
    return Matches(*torch.tensor(found, dtype=torch.long).view(-1, 3).unbind(1))


def targets(boxes: list[tuple[float, ...]], question: list[int], questions: int = 2) -> Targets:
    return Targets(questions, torch.tensor(boxes).view(-1, 4), torch.tensor(question, dtype=torch.long))


def answered(logits: list[list[float]], box: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    found = torch.tensor(logits)
    return found, torch.tensor(box).expand(*found.shape, 4)


def test_boxes() -> None:
    logits, boxes = answered([[0.0, 0.0], [0.0, 0.0]], BOX)
    parts = set_losses(logits, boxes, targets([SHIFTED, BOX], [0, 0]), pairs((0, 1, 0), (0, 0, 1)), 2)
    assert float(parts["box"]) == pytest.approx((0.1 + 0.2 + 0) / 2, abs=1e-6)
    assert float(parts["giou"]) == pytest.approx((1 - GIOU + 0) / 2, abs=1e-5)


def test_scores_learn_towards_the_iou_where_the_phrase_is_there() -> None:
    logits = torch.tensor([[0.7, -0.4, 1.1], [2.0, 2.0, 2.0]])  # the second question has no object: it teaches nothing
    found = score_loss(logits, pairs((0, 1, 0)), torch.tensor([IOU]), torch.tensor([True, False]))
    wanted = sigmoid(-0.4) ** 0.25 * IOU**0.75
    by_hand = 10 * cross(-0.4, wanted) + sum(sigmoid(one) ** 2 * cross(one, 0) for one in (0.7, 1.1))
    assert float(found) == pytest.approx(by_hand / (2 * 200), abs=1e-6)


def test_a_query_for_several_objects_learns_from_the_one_that_fits_best() -> None:
    logits = torch.tensor([[0.3]])
    for order in ((0, 1), (1, 0)):
        overlap = torch.tensor([0.9, 0.2])[list(order)]
        found = score_loss(logits, pairs((0, 0, 0), (0, 0, 1)), overlap, torch.tensor([True]))
        assert float(found) == pytest.approx(10 * cross(0.3, sigmoid(0.3) ** 0.25 * 0.9**0.75) / 200, abs=1e-6)


def test_presence() -> None:
    found = presence_loss(torch.tensor([0.3, -1.2]), torch.tensor([True, False]))
    assert float(found) == pytest.approx(0.5 * (cross(0.3, 1) + cross(-1.2, 0)) / 2, abs=1e-6)


def test_masks() -> None:
    logits = torch.tensor([[1.0, -0.5], [0.2, -2.0]])
    truth = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    masks = torch.zeros(1, 2, 2, 2)
    masks[0, 1] = logits
    known = Targets(
        1, torch.tensor([BOX, BOX]), torch.tensor([0, 0]), torch.stack([truth, truth]), torch.tensor([True, False])
    )
    found = mask_losses(masks, known, pairs((0, 1, 0), (0, 0, 1)), 2)  # the second object has no outline
    focal, shares, overlap = 0.0, 0.0, 0.0
    for logit, wanted in zip(logits.flatten().tolist(), truth.flatten().tolist(), strict=True):
        p = sigmoid(logit)
        right, alpha = (p, 0.25) if wanted else (1 - p, 0.75)
        focal += alpha * (1 - right) ** 2 * -math.log(right) / 4
        shares, overlap = shares + p, overlap + p * wanted
    assert float(found["mask"]) == pytest.approx(focal / 2, abs=1e-6)
    assert float(found["dice"]) == pytest.approx((1 - (2 * overlap + 1) / (shares + 2 + 1)) / 2, abs=1e-6)


def test_the_whole_is_the_weighted_sum_over_layers() -> None:
    logits, boxes = torch.tensor([[[0.7]], [[-0.4]]]), torch.tensor([BOX, SHIFTED]).view(2, 1, 1, 4)
    answers = Layers(logits, boxes, torch.tensor([[0.5], [1.5]]))
    many = Layers(logits[:, :, [0]], torch.tensor(BOX).expand(2, 1, 1, 4), None)
    weights = Weights(box=3, giou=5, score=7, presence=11, many=13)
    found, parts = loss(answers, targets([BOX], [0], 1), weights, Costs(), many)

    def scored(logit: float, iou: float) -> float:
        return 10 * cross(logit, sigmoid(logit) ** 0.25 * iou**0.75) / 200

    first = 3 * 0 + 5 * 0 + 7 * scored(0.7, 1) + 11 * 0.5 * cross(0.5, 1)
    second = 3 * 0.3 + 5 * (1 - GIOU) + 7 * scored(-0.4, IOU) + 11 * 0.5 * cross(1.5, 1)
    third = 13 * 7 * (scored(0.7, 1) + scored(-0.4, 1))
    assert float(found) == pytest.approx(first + second + third, rel=1e-4)
    assert float(parts["box"]) == pytest.approx(0.3) and set(parts) == {"box", "giou", "score", "presence"}
    assert float(loss(answers, targets([BOX], [0], 1), weights, Costs(), objects=4.0)[1]["box"]) == pytest.approx(0.075)


def test_without_any_object_it_is_finite_and_reaches_every_answer() -> None:
    logits, boxes = torch.zeros(2, 2, 3, requires_grad=True), torch.full((2, 2, 3, 4), 0.5, requires_grad=True)
    presence, masks = torch.zeros(2, 2, requires_grad=True), torch.zeros(2, 3, 4, 4, requires_grad=True)
    nothing = Targets(
        2, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0, 4, 4), torch.zeros(0, dtype=torch.bool)
    )
    found, _ = loss(Layers(logits, boxes, presence, masks), nothing, Weights(), Costs(), Layers(logits, boxes, None))
    found.backward()
    assert found.item() == pytest.approx(2 * 20 * 0.5 * math.log(2))
    for one in (logits, boxes, presence, masks):  # several processes wait for each other's gradients
        assert one.grad is not None and torch.isfinite(one.grad).all()
    assert presence.grad is not None and (presence.grad > 0).all()
