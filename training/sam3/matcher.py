"""Which query answers for which object: one to one (Hungarian), and one object to many queries.

One to one as DETR (https://arxiv.org/abs/2005.12872) with a focal cost of the score, as the published recipe; one to
many as DAC-DETR (https://openreview.net/forum?id=8JMexYVcXB).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_convert, box_iou, generalized_box_iou

ALPHA, GAMMA = 0.25, 2.0
"""Of the focal cost."""


@dataclass(frozen=True)
class Costs:
    """Weights of what a query is compared by with an object: its score, the boxes' L1 distance, and their GIoU."""

    score: float = 2.0
    box: float = 5.0
    giou: float = 2.0


@dataclass(frozen=True, eq=False)
class Matches:
    """Pairs of query and object.

    Attributes:
        question: (M,) int64, of B.
        query: (M,) int64, of Q.
        target: (M,) int64, of N objects.
    """

    question: Tensor
    query: Tensor
    target: Tensor


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, targets: Tensor, question: Tensor, costs: Costs) -> Matches:
    """Give each object the query that fits it best, so that the whole is cheapest.

    Args:
        logits: (B, Q) of the scores.
        boxes: (B, Q, 4) cx, cy, w, h.
        targets: (N, 4) boxes of the objects.
        question: (N,) which question each object is an answer to.
        costs: see there.

    Returns:
        A pair for each object; where a question has more objects than queries, for each query.
    """
    rows, queries, found = [], [], []
    for row in question.unique().tolist():
        mine = (question == row).nonzero()[:, 0]
        cost = pairwise_cost(logits[row], boxes[row], targets[mine], costs)
        chosen, of = linear_sum_assignment(torch.nan_to_num(cost, nan=1e6, posinf=1e6, neginf=-1e6).cpu().numpy())
        rows.append(torch.full((len(of),), row))
        queries.append(torch.as_tensor(chosen))
        found.append(mine.cpu()[torch.as_tensor(of)])
    return _gathered(rows, queries, found, logits.device)


@torch.no_grad()
def match_many(
    logits: Tensor, boxes: Tensor, targets: Tensor, question: Tensor, *,
    alpha: float = 0.3, least: float = 0.4, most: int = 4,
) -> Matches:  # fmt: skip
    """Give each object all queries that fit it well; as :func:`match`, without costs.

    Args:
        logits: see :func:`match`.
        boxes: see there.
        targets: see there.
        question: see there.
        alpha: weight of the score in a query's fitness; the rest is the IoU's.
        least: fitness.
        most: queries for an object.
    """
    rows, queries, found = [], [], []
    for row in question.unique().tolist():
        mine = (question == row).nonzero()[:, 0]
        iou = box_iou(_xyxy(boxes[row].float()), _xyxy(targets[mine].float()))
        fit = alpha * logits[row].float().sigmoid()[:, None] + (1 - alpha) * iou
        border = fit.topk(min(most, len(fit)), dim=0).values[-1]
        chosen, of = ((fit >= border) & (fit > least)).nonzero(as_tuple=True)
        rows.append(torch.full((len(of),), row))
        queries.append(chosen.cpu())
        found.append(mine[of].cpu())
    return _gathered(rows, queries, found, logits.device)


def pairwise_cost(logits: Tensor, boxes: Tensor, targets: Tensor, costs: Costs) -> Tensor:
    """(Q, N) what it costs to have a query answer for an object; see :func:`match`."""
    logits, boxes, targets = logits.float(), boxes.float(), targets.float()
    score = logits.sigmoid()
    positive = -ALPHA * (1 - score) ** GAMMA * functional.logsigmoid(logits)
    negative = -(1 - ALPHA) * score**GAMMA * functional.logsigmoid(-logits)
    apart: Tensor = torch.cdist(boxes, targets, p=1)
    overlap: Tensor = generalized_box_iou(_xyxy(boxes), _xyxy(targets))
    cost: Tensor = costs.score * (positive - negative)[:, None] + costs.box * apart - costs.giou * overlap
    return cost


def _xyxy(boxes: Tensor) -> Tensor:
    found: Tensor = box_convert(boxes, "cxcywh", "xyxy")
    return found


def _gathered(rows: list[Tensor], queries: list[Tensor], found: list[Tensor], device: torch.device) -> Matches:
    if not rows:
        none = torch.zeros(0, dtype=torch.long, device=device)
        return Matches(none, none, none)
    return Matches(*(torch.cat(part).long().to(device) for part in (rows, queries, found)))
