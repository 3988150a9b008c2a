"""Prompts on a warm picture → masks and boxes, with a guard that keeps a drawn box when in doubt.

Unguarded refinement makes boxes worse wherever the segmenter is weak, so a refined box must agree
with the drawn one, and the segmenter must trust it by three measures: its predicted IoU, the
stability of the mask under a moved threshold, and its answers to boxes drawn a little differently.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tator_ml.engine.messages import Prompt
from tator_ml.engine.segmenters.base import Decoded, Embedding, Prompts, Segmenter
from tator_sdk.geometry import MaskArray, Xyxy, area_xyxy, box_of_mask, clip_xyxy, iou_xyxy, largest_component
from tator_sdk.settings import Settings

# Each side moved by a twelfth of the box, as a hand would: four boxes beside the drawn one.
WOBBLES = np.array([[-1, -1, 1, 1], [1, 1, -1, -1], [-1, 1, -1, 1], [1, -1, 1, -1]], np.float32) / np.float32(12)

ALIKE = 0.05
"""Masks whose predicted IoU differs by no more are trusted alike."""


@dataclass(frozen=True)
class Guard:
    """Least values a refined box must reach to replace the drawn one; all 0..1."""

    agreement: float
    quality: float
    stability: float
    consistency: float

    @classmethod
    def of(cls, settings: Settings) -> Guard:
        """The guard that the settings ask for."""
        return cls(
            settings.guard_agreement,
            settings.guard_quality,
            settings.guard_stability,
            settings.guard_consistency,
        )


@dataclass(frozen=True)
class Segment:
    """What the segmenter made of one prompt.

    Attributes:
        mask: (H, W) the largest part.
        xyxy: its box.
        quality: predicted IoU, 0..1.
        stability: IoU of the mask's areas under thresholds moved by one logit up and down, 0..1.
        consistency: for boxes: mean IoU with the boxes that wobbled drawings give, 0..1; 1 for points.
    """

    mask: MaskArray
    xyxy: Xyxy
    quality: float
    stability: float
    consistency: float = 1.0


def objections(segment: Segment, drawn: Xyxy, guard: Guard) -> list[str]:
    """Why the refined box should not replace the drawn one; empty when it may."""
    measured = (
        ("agrees with the drawn box by", iou_xyxy(segment.xyxy, drawn), guard.agreement),
        ("is trusted by", segment.quality, guard.quality),
        ("is stable by", segment.stability, guard.stability),
        ("is consistent by", segment.consistency, guard.consistency),
    )
    return [f"{what} {value:.2f}, below {least:g}" for what, value, least in measured if value < least]


def segment_points(
    segmenter: Segmenter, embedding: Embedding, prompt: Prompt, usual_area: float | None = None
) -> Segment | None:
    """Points, with a box or not → the best mask, or None when it is empty.

    A single point is ambiguous: of the model's three masks the one it trusts most is taken. Where it trusts
    several alike and ``usual_area`` is known (of the box, a share of the picture), the one that is nearest to it.
    """
    points = np.array([prompt.points_xy], np.float32)
    labels = np.array([[int(positive) for positive in prompt.positive]], np.int64)
    boxes = None if prompt.box_xyxy is None else np.array([prompt.box_xyxy], np.float32)
    ambiguous = len(prompt.points_xy) == 1 and boxes is None
    decoded = segmenter.decode(embedding, Prompts(points, labels, boxes), multimask=ambiguous)
    alike: list[Segment] = []
    for best in torch.argsort(decoded.iou[0], descending=True).tolist():
        if alike and alike[0].quality - float(decoded.iou[0, best].clamp(0, 1)) > ALIKE:
            break
        segment = _segment(segmenter, embedding, decoded, 0, best)
        if segment is None:
            continue
        if not usual_area or usual_area <= 0:
            return segment
        alike.append(segment)
    return _nearest_in_size(alike, usual_area, embedding.size_wh) if alike and usual_area else None


def _nearest_in_size(segments: Sequence[Segment], usual_area: float, size_wh: tuple[int, int]) -> Segment:
    """The segment whose box's share of the picture is nearest, twice as large being as far off as half as large."""
    usual = usual_area * size_wh[0] * size_wh[1]
    return min(segments, key=lambda one: abs(math.log(area_xyxy(one.xyxy) / usual)))


def segment_boxes(segmenter: Segmenter, embedding: Embedding, boxes: Sequence[Xyxy]) -> list[Segment | None]:
    """Boxes → one mask each, all of them and their wobbled copies in one decoder batch."""
    drawn = np.array(boxes, np.float32).reshape(-1, 4)
    size = np.stack([drawn[:, 2] - drawn[:, 0], drawn[:, 3] - drawn[:, 1]] * 2, axis=1)
    wobbled = drawn[:, None] + WOBBLES[None] * size[:, None]
    limit = np.array(embedding.size_wh * 2, np.float32)
    batch = np.concatenate([drawn[:, None], wobbled], axis=1).clip(0, limit)
    decoded = segmenter.decode(embedding, Prompts(boxes=batch.reshape(-1, 4)), multimask=False)
    per_box = batch.shape[1]
    answers: list[Segment | None] = []
    for index in range(len(drawn)):
        first = index * per_box
        main = _segment(segmenter, embedding, decoded, first, 0)
        if main is not None:
            low = decoded.low_res[first : first + per_box, 0] > 0
            main = Segment(main.mask, main.xyxy, main.quality, main.stability, _consistency(low))
        answers.append(main)
    return answers


def _segment(segmenter: Segmenter, embedding: Embedding, decoded: Decoded, prompt: int, choice: int) -> Segment | None:
    low = decoded.low_res[prompt, choice]
    mask = segmenter.full_size(embedding, low[None])[0] > 0
    whole = largest_component(mask.cpu().numpy())
    box = box_of_mask(whole)
    if box is None:
        return None
    quality = float(decoded.iou[prompt, choice].clamp(0, 1))
    return Segment(whole, clip_xyxy(box, embedding.size_wh), quality, stability(low))


def stability(logits: Tensor, offset: float = 1.0) -> float:
    """SAM's stability score: the mask's area at ``+offset`` over its area at ``-offset``, 0..1.

    Source: ``segment_anything.utils.amg.calculate_stability_score``.
    """
    wide = int((logits > -offset).sum())
    return int((logits > offset).sum()) / wide if wide else 0.0


def _consistency(masks: Tensor) -> float:
    """Mean IoU between the box of the first mask and those of the others, (K, h, w) bool."""
    boxes = [box_of_mask(np.asarray(mask)) for mask in masks.cpu().numpy()]
    first, others = boxes[0], boxes[1:]
    if first is None:
        return 0.0
    return float(np.mean([0.0 if box is None else iou_xyxy(first, box) for box in others]))
