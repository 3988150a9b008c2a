"""Painted strokes as prompts."""

from __future__ import annotations

import cv2
import numpy as np

from tator_sdk.geometry import MaskArray


def stroke_points(mask: MaskArray, count: int = 5) -> tuple[tuple[float, float], ...]:
    """A painted stroke → points well inside of it and far from each other, x and y in pixels.

    Farthest-point sampling over the stroke's inner half; the first is its deepest pixel.
    """
    inner = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    ys, xs = np.nonzero(inner >= max(0.5 * float(inner.max()), 1e-6))
    points = np.stack([xs, ys], 1).astype(np.float64)
    chosen = [points[int(inner[ys, xs].argmax())]]
    reach = float(np.hypot(*np.ptp(points, axis=0)))
    while len(chosen) < count:
        away = np.min([np.hypot(*(points - one).T) for one in chosen], axis=0)
        if away.max() < max(3.0, 0.15 * reach):
            break
        chosen.append(points[int(away.argmax())])
    return tuple((float(x), float(y)) for x, y in chosen)
