"""Four corners ↔ a rotated box."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from tator_sdk.formats.dataset import Ring
from tator_sdk.geometry import RotatedBox

RECTANGLE_SLACK = 0.75
"""Pixels that a corner may be off, for four points to be a rectangle whose first corner and direction are kept."""


def rotated_box(corners: Ring) -> RotatedBox:
    """Four corners (4, 2) in pixels, in order around the box → the box turned about the first of them.

    Corners that run anticlockwise are read the other way around. Four that form no rectangle give the smallest one
    around them, as ultralytics' ``xyxyxyxy2xywhr`` does.

    Raises:
        ValueError: they enclose nothing.
    """
    ordered = corners if _turns_clockwise(corners) else corners[[0, 3, 2, 1]]
    origin, along, far, down = ordered
    off = np.abs(along + down - origin - far).max()
    first, second = along - origin, down - origin
    square = abs(float(first @ second)) <= RECTANGLE_SLACK * max(float(np.hypot(*first)), float(np.hypot(*second)))
    if off > RECTANGLE_SLACK or not square:
        points = cv2.boxPoints(cv2.minAreaRect(corners.astype(np.float32))).astype(np.float64)
        ordered = points if _turns_clockwise(points) else points[::-1]
        ordered = np.roll(ordered, -int(((ordered - origin) ** 2).sum(1).argmin()), axis=0)
    width = (_length(ordered[1] - ordered[0]) + _length(ordered[2] - ordered[3])) / 2
    height = (_length(ordered[3] - ordered[0]) + _length(ordered[2] - ordered[1])) / 2
    if min(width, height) < 1e-3:
        raise ValueError("the box has no area")
    edge = ordered[1] - ordered[0] if width >= height else _quarter_back(ordered[3] - ordered[0])
    rotation = math.degrees(math.atan2(edge[1], edge[0]))
    return RotatedBox(float(ordered[0][0]), float(ordered[0][1]), width, height, rotation)


def within_picture(box: RotatedBox, size_wh: tuple[int, int]) -> RotatedBox:
    """The box as it is, where any of it lies in the picture.

    Raises:
        ValueError: nothing of it does.
    """
    width, height = size_wh
    picture = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    shared, _ = cv2.intersectConvexConvex(box.corners().astype(np.float32), picture)
    if shared <= 0:
        raise ValueError("the box lies outside of the picture")
    return box


def _turns_clockwise(corners: Ring) -> bool:
    x, y = corners.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) >= 0  # y grows downwards


def _length(edge: NDArray[np.float64]) -> float:
    return float(np.hypot(*edge))


def _quarter_back(edge: NDArray[np.float64]) -> NDArray[np.float64]:
    """The direction of a box's width by that of its height, which says more where it is the longer side."""
    return np.array([edge[1], -edge[0]])
