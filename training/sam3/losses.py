"""What a SAM 3 is taught by: where objects are, how sure each query is, and whether the phrase is there at all.

The published recipe (https://arxiv.org/abs/2511.16719 and its configurations for fine-tuning): every decoder layer is
taught; a query's score learns towards ``score^0.25 · IoU^0.75`` of its box (IA-BCE of Align-DETR,
https://arxiv.org/abs/2304.07527); questions without any object teach the presence alone. Masks, of the last layer,
learn by focal (https://arxiv.org/abs/1708.02002) and Dice loss (https://arxiv.org/abs/1606.04797).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_convert, box_iou, generalized_box_iou_loss

from training.sam3.forward import Layers
from training.sam3.matcher import Costs, Matches, match, match_many

SCORE_SHARE = 0.25
"""Of the query's own score in what it learns towards; the rest is the IoU's."""
LEAST_TARGET = 0.01
POSITIVE_WEIGHT = 10.0
"""Of a query that answers for an object, over one that answers for none."""
GAMMA = 2.0
QUERIES = 200
"""Of the published model. The loss of scores is divided by them even where there are fewer, so that an object weighs
the same in a smaller model."""
PRESENCE_ALPHA = 0.5
MASK_ALPHA, MASK_GAMMA = 0.25, 2.0


@dataclass(frozen=True, eq=False)
class Targets:
    """The objects that B questions have for answers.

    Attributes:
        questions: B.
        boxes: (N, 4) cx, cy, w, h as shares of the picture.
        question: (N,) int64, of B.
        masks: (N, H, W) 0..1 at the resolution of the model's masks; None where none are learned.
        outlined: (N,) bool: which masks are known.
    """

    questions: int
    boxes: Tensor
    question: Tensor
    masks: Tensor | None = None
    outlined: Tensor | None = None

    @property
    def present(self) -> Tensor:
        """(B,) bool: questions that have an object."""
        found = torch.zeros(self.questions, dtype=torch.bool, device=self.question.device)
        found[self.question] = True
        return found


@dataclass(frozen=True)
class Weights:
    """Of the parts of the loss; ``many`` of what the second set of queries adds."""

    box: float = 5.0
    giou: float = 2.0
    score: float = 20.0
    presence: float = 20.0
    mask: float = 200.0
    dice: float = 10.0
    many: float = 2.0


def loss(
    answers: Layers, targets: Targets, weights: Weights, costs: Costs, many: Layers | None = None,
    objects: Tensor | float | None = None,
) -> tuple[Tensor, Mapping[str, Tensor]]:  # fmt: skip
    """The loss of all layers, and its parts of the last one for a log.

    Args:
        answers: of the model.
        targets: what they should be.
        weights: of the parts.
        costs: by which queries are matched with objects.
        many: answers of the second set of queries; None where there is none.
        objects: by which boxes and masks are normalised; None for those of ``targets``, one at least. Several
            processes give their mean.

    Returns:
        A scalar, and unweighted scalars by name.
    """
    count = max(len(targets.boxes), 1) if objects is None else objects
    total = answers.logits.new_zeros((), dtype=torch.float32)
    parts: dict[str, Tensor] = {}
    for layer in range(len(answers.logits)):
        logits, boxes = answers.logits[layer].float(), answers.boxes[layer].float()
        matches = match(logits, boxes, targets.boxes, targets.question, costs)
        parts = set_losses(logits, boxes, targets, matches, count)
        if answers.presence is not None:
            parts["presence"] = presence_loss(answers.presence[layer].float(), targets.present)
        if answers.masks is not None and layer == len(answers.logits) - 1:
            parts |= mask_losses(answers.masks, targets, matches, count)
        total = total + sum(getattr(weights, name) * value for name, value in parts.items())
        if many is not None:
            logits, boxes = many.logits[layer].float(), many.boxes[layer].float()
            several = match_many(logits, boxes, targets.boxes, targets.question)
            added = set_losses(logits, boxes, targets, several, count)
            total = total + weights.many * sum(getattr(weights, name) * value for name, value in added.items())
    return total, {name: value.detach() for name, value in parts.items()}


def set_losses(
    logits: Tensor, boxes: Tensor, targets: Targets, matches: Matches, count: Tensor | float
) -> dict[str, Tensor]:
    """Losses ``box``, ``giou`` and ``score`` of one layer.

    Args:
        logits: (B, Q).
        boxes: (B, Q, 4).
        targets: the objects.
        matches: which query answers for which of them.
        count: of objects, to divide by.
    """
    mine, theirs = boxes[matches.question, matches.query], targets.boxes[matches.target]
    mine_xyxy, theirs_xyxy = box_convert(mine, "cxcywh", "xyxy"), box_convert(theirs, "cxcywh", "xyxy")
    overlap = box_iou(mine_xyxy.detach(), theirs_xyxy).diagonal() if len(mine) else mine.new_zeros(0)
    return {
        "box": functional.l1_loss(mine, theirs, reduction="sum") / count,
        "giou": generalized_box_iou_loss(mine_xyxy, theirs_xyxy, reduction="sum") / count,
        "score": score_loss(logits, matches, overlap, targets.present),
    }


def score_loss(logits: Tensor, matches: Matches, overlap: Tensor, present: Tensor) -> Tensor:
    """IoU-aware binary cross-entropy of the scores; nothing for questions without an object.

    Args:
        logits: (B, Q).
        matches: M pairs.
        overlap: (M,) IoU of their boxes.
        present: (B,) questions that have an object.
    """
    places = (matches.question, matches.query)
    score = logits.sigmoid()
    with torch.no_grad():
        wanted = torch.zeros_like(logits)
        soft = score[places] ** SCORE_SHARE * overlap ** (1 - SCORE_SHARE)
        # where several objects share a query, the one that fits it best counts, whatever their order
        wanted.view(-1).scatter_reduce_(
            0, places[0] * logits.shape[1] + places[1], soft.clamp(min=LEAST_TARGET), "amax"
        )
        positive = wanted > 0
    cross = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    weight = torch.where(positive, POSITIVE_WEIGHT, score**GAMMA) * present[:, None]
    return (cross * weight).sum() / (len(logits) * max(logits.shape[1], QUERIES))


def presence_loss(logits: Tensor, present: Tensor) -> Tensor:
    """Binary cross-entropy of (B,) logits, halved as the recipe's focal loss without focus does."""
    return PRESENCE_ALPHA * functional.binary_cross_entropy_with_logits(logits, present.float())


def mask_losses(masks: Tensor, targets: Targets, matches: Matches, count: Tensor | float) -> dict[str, Tensor]:
    """Losses ``mask`` (focal) and ``dice`` of matched queries whose objects have an outline.

    Args:
        masks: (B, Q, H, W) logits.
        targets: with masks of that resolution.
        matches: which query answers for which object.
        count: of objects, to divide by.
    """
    if targets.masks is None or targets.outlined is None:
        raise ValueError("masks are taught, but there are none")
    keep = targets.outlined[matches.target]
    mine = masks[matches.question[keep], matches.query[keep]].float().flatten(1)
    theirs = targets.masks[matches.target[keep]].float().flatten(1)
    cross = functional.binary_cross_entropy_with_logits(mine, theirs, reduction="none")
    share = mine.sigmoid()
    right = share * theirs + (1 - share) * (1 - theirs)
    alpha = MASK_ALPHA * theirs + (1 - MASK_ALPHA) * (1 - theirs)
    focal = (alpha * (1 - right) ** MASK_GAMMA * cross).sum() / max(mine.shape[1], 1)
    dice = 1 - (2 * (share * theirs).sum(1) + 1) / (share.sum(1) + theirs.sum(1) + 1)
    return {"mask": focal / count, "dice": dice.sum() / count}
