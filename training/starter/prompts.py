"""Prompts as people give them, drawn for an object of a scene."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def depth(mask: Mask) -> NDArray[np.float32]:
    """Distance of every pixel of ``mask`` (H, W) to its edge in pixels; 0 outside."""
    padded = np.pad(mask.astype(np.uint8), 1)
    return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1], np.float32)


def center_point(mask: Mask) -> tuple[float, float]:
    """The pixel furthest from the edge, (x, y): where a person clicks to mean the whole object."""
    inner = depth(mask)
    y, x = np.unravel_index(int(inner.argmax()), inner.shape)
    return float(x), float(y)


def point_inside(rng: np.random.Generator, mask: Mask) -> tuple[float, float]:
    """A click on the object: mostly well inside, sometimes anywhere on it, (x, y) pixels."""
    inner = depth(mask)
    least = inner.max() * (0.55 if rng.random() < 0.6 else 0.1)
    ys, xs = np.nonzero(inner >= max(least, 0.5))
    pick = int(rng.integers(len(xs)))
    return float(xs[pick]), float(ys[pick])


def loosened(rng: np.random.Generator, xyxy: tuple[float, float, float, float], share: float) -> NDArray[np.float32]:
    """The box with each side moved in or out by up to ``share`` of its size, (4,) xyxy pixels."""
    x0, y0, x1, y1 = xyxy
    size = np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0], np.float32)
    return (np.array(xyxy, np.float32) + rng.uniform(-share, share, 4) * size).astype(np.float32)


def tight_box(mask: Mask) -> tuple[int, int, int, int]:
    """Box around the mask's pixels, xyxy, right and bottom exclusive; all zeros when empty."""
    ys, xs = np.nonzero(mask)
    if not len(xs):
        return 0, 0, 0, 0
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def neighbours(instances: NDArray[np.uint8], label: int, reach: int = 2) -> list[int]:
    """Labels of ``instances`` (H, W) that come within ``reach`` pixels of ``label``."""
    grown = cv2.dilate((instances == label).astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8))
    near = np.unique(instances[grown > 0])
    return [int(other) for other in near if other not in (0, label)]
