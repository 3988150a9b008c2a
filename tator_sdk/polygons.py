"""Masks → polygons with few vertices that still cover the same pixels."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tator_sdk.geometry import MaskArray, box_of_mask, iou_of_masks

Polygon = NDArray[np.float64]


def polygons_of_mask(mask: MaskArray, least_iou: float = 0.98) -> list[Polygon]:
    """Outlines of a mask's parts, largest first.

    Each is simplified (Douglas-Peucker) as far as its IoU with the part stays at ``least_iou``.

    Args:
        mask: (H, W).
        least_iou: 0..1; 1 keeps every vertex.

    Returns:
        Polygons (N, 2), N at least 3, in pixels, within a quarter pixel of the pixels' outer edge. Holes
        are not represented.
    """
    found = box_of_mask(mask)
    if found is None:
        return []
    x0, y0, x1, y1 = (int(edge) for edge in found)
    part = np.pad(mask[y0:y1, x0:x1].astype(np.uint8), 1)
    # Contours run through pixel centres, half a pixel inside of the area: on a doubled grid only a quarter.
    doubled = part.repeat(2, axis=0).repeat(2, axis=1)
    contours, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    ordered = [np.asarray(contour, np.int32) for contour in sorted(contours, key=cv2.contourArea, reverse=True)]
    simple = [_simplified(contour, doubled.shape, least_iou) for contour in ordered]
    return [(points + 0.5) / 2 - 1 + np.array([x0, y0]) for points in simple if len(points) >= 3]


def _simplified(contour: NDArray[np.int32], shape: tuple[int, ...], least_iou: float) -> Polygon:
    whole = _painted(contour, shape)
    low, high, best = 0.0, float(max(shape)), contour
    for _ in range(12):  # the error grows with epsilon, so halving finds about the largest that still fits
        middle = (low + high) / 2
        tried = np.asarray(cv2.approxPolyDP(contour, middle, True), np.int32)
        if len(tried) >= 3 and iou_of_masks(whole, _painted(tried, shape)) >= least_iou:
            low, best = middle, tried
        else:
            high = middle
    return best.reshape(-1, 2).astype(np.float64)


def _painted(contour: NDArray[np.int32], shape: tuple[int, ...]) -> MaskArray:
    canvas = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(canvas, [contour], 1)
    return canvas > 0
