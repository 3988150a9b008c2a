"""Boxes and masks in pixels of the picture as the annotator sees it (EXIF rotation applied).

Boxes are ``xyxy`` with exclusive right and bottom edges, so a one-pixel mask has an area of one.
"""

from __future__ import annotations

import math
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


@dataclass(frozen=True)
class RotatedBox:
    """A rectangle turned about its top-left corner, as Label Studio keeps it.

    Attributes:
        x, y: the corner that the rotation leaves in place, pixels.
        width, height: side lengths, pixels.
        rotation: degrees clockwise.
    """

    x: float
    y: float
    width: float
    height: float
    rotation: float = 0.0

    def corners(self) -> NDArray[np.float64]:
        """(4, 2) corner points in pixels, clockwise from the fixed one."""
        angle = math.radians(self.rotation)
        along = np.array([math.cos(angle), math.sin(angle)])
        down = np.array([-math.sin(angle), math.cos(angle)])
        origin = np.array([self.x, self.y])
        far = origin + self.width * along
        return np.stack([origin, far, far + self.height * down, origin + self.height * down])

    def enclosing_xyxy(self) -> Xyxy:
        """The upright box around it."""
        corners = self.corners()
        low, high = corners.min(0), corners.max(0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


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


def signed_area(ring: Ring) -> float:
    """Area of a ring in square pixels; negative for one that turns the other way."""
    x, y = ring[:, 0], ring[:, 1]
    return float(((np.roll(y, -1) - y) * (x + np.roll(x, -1))).sum() / 2)


def painting_order(outline: Outline) -> list[tuple[Ring, bool]]:
    """An outline's rings, the largest first, each with whether it fills or empties: islands in holes stay that way."""
    rings = [(ring, True) for ring in outline.parts] + [(ring, False) for ring in outline.holes]
    return sorted(rings, key=lambda one: -abs(signed_area(one[0])))


def mask_of_outline(outline: Outline, size_wh: tuple[int, int]) -> MaskArray:
    """The pixels (H, W) whose centres lie in one of the parts and in no hole of it.

    OpenCV's fill takes the pixels that an edge touches as well, so masks would grow at each import.
    """
    mask = np.zeros((size_wh[1], size_wh[0]), bool)
    for ring, filled in painting_order(outline):
        fill_ring(mask, ring, filled)
    return mask


def mask_of_box(box: RotatedBox | Xyxy, size_wh: tuple[int, int]) -> MaskArray:
    """The pixels (H, W) whose centres lie in a box; one that lies between the centres is the pixel it lies on."""
    turned = box if isinstance(box, RotatedBox) else RotatedBox(box[0], box[1], box[2] - box[0], box[3] - box[1])
    mask = np.zeros((size_wh[1], size_wh[0]), bool)
    fill_ring(mask, turned.corners(), True)
    if not mask.any():
        column, row = np.clip(turned.corners().mean(0).astype(int), 0, np.array(size_wh) - 1)
        mask[row, column] = True
    return mask


def fill_ring(mask: MaskArray, ring: Ring, value: bool) -> None:
    """Set the pixels of a mask (H, W) whose centres lie inside a ring."""
    (x0, y0), (x1, y1) = ring.T, np.roll(ring, -1, 0).T
    left, top = np.clip(np.floor(ring.min(0)), 0, mask.shape[::-1]).astype(int)
    right, bottom = np.clip(np.ceil(ring.max(0)), 0, mask.shape[::-1]).astype(int)
    begin = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), top, bottom).astype(int)
    count = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), top, bottom).astype(int) - begin
    edge = np.repeat(np.arange(len(ring)), count)  # once for each row of centres that it crosses
    row = begin[edge] + np.arange(len(edge)) - (np.cumsum(count) - count)[edge]
    slope = (x1 - x0)[edge] / (y1 - y0)[edge]
    column = np.clip(np.ceil(x0[edge] + (row + 0.5 - y0[edge]) * slope - 0.5), left, right).astype(int)
    crossed = np.zeros((bottom - top, right - left + 1), bool)
    np.bitwise_xor.at(crossed, (row - top, column - left), True)
    mask[top:bottom, left:right][np.logical_xor.accumulate(crossed, axis=1)[:, :-1]] = value


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
