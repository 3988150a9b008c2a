"""Boxes and masks in pixels of the picture as the annotator sees it (EXIF rotation applied).

Boxes are ``xyxy`` with exclusive right and bottom edges, so a one-pixel mask has an area of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Xyxy = tuple[float, float, float, float]
MaskArray = NDArray[np.bool_]
Ring = NDArray[np.float64]
"""(N, 2) corner points in pixels, N at least 3, not closed by a repeated first one."""


@dataclass(frozen=True, eq=False)
class Outline:
    """An object's area: one or more parts, some of them with holes.

    Attributes:
        parts: outer rings.
        holes: inner rings; each lies inside one of the parts.
    """

    parts: tuple[Ring, ...]
    holes: tuple[Ring, ...] = ()

    def enclosing_xyxy(self) -> Xyxy:
        """The upright box around it."""
        points = np.concatenate(self.parts)
        (x0, y0), (x1, y1) = points.min(0), points.max(0)
        return float(x0), float(y0), float(x1), float(y1)


def iou_xyxy(one: Xyxy, other: Xyxy) -> float:
    """Intersection over union of two boxes, 0..1; 0 where both are empty."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    overlap = max(0.0, width) * max(0.0, height)
    union = area_xyxy(one) + area_xyxy(other) - overlap
    return overlap / union if union > 0 else 0.0


def area_xyxy(box: Xyxy) -> float:
    """Area in square pixels; 0 for an inverted box."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def clip_xyxy(box: Xyxy, size_wh: tuple[int, int]) -> Xyxy:
    """The part of the box inside a picture, corners put in order."""
    width, height = size_wh
    x0, x1 = sorted((box[0], box[2]))
    y0, y1 = sorted((box[1], box[3]))
    return (
        min(max(x0, 0.0), width),
        min(max(y0, 0.0), height),
        min(max(x1, 0.0), width),
        min(max(y1, 0.0), height),
    )


def box_of_mask(mask: MaskArray) -> Xyxy | None:
    """Tight box of a mask (H, W), or None when it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def largest_component(mask: MaskArray) -> MaskArray:
    """The mask's largest 8-connected part, so that stray pixels do not stretch its box."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count <= 2:
        return mask
    return np.asarray(labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))


def iou_of_masks(one: MaskArray, other: MaskArray) -> float:
    """Intersection over union of two masks (H, W), 0..1; 0 where both are empty."""
    union = int(np.logical_or(one, other).sum())
    return int(np.logical_and(one, other).sum()) / union if union else 0.0
