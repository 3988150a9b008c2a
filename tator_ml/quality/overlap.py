"""How alike two regions of Label Studio are: intersection over union, whatever tools drew them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.Image import DecompressionBombError

from tator_sdk.annotations import size_of
from tator_sdk.geometry import MaskArray, Xyxy, box_of_mask, fill_ring, iou_of_masks, iou_xyxy
from tator_sdk.regions import RegionError, read_box, read_stroke

Json = Mapping[str, Any]

GRID = 1024
"""Cells of the longer side on which shapes that are no upright boxes are compared."""
ELLIPSE_CORNERS = 90

Corners = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Pixels:
    mask: MaskArray


_Shape = Xyxy | Corners | _Pixels
"""An upright box, a ring of corners (N, 2), or a mask; in pixels of the picture."""


def iou_of_regions(one: Json, other: Json) -> float:
    """Intersection over union of two regions on one picture, 0..1.

    Upright boxes exactly. Polygons, ellipses and turned boxes on a grid of 1024 cells along the longer side of what
    encloses both; brushes and bitmasks on the picture's pixels.

    Raises:
        RegionError: one of them has no extent, or cannot be read.
    """
    if one.get("type") == other.get("type") and one.get("value") == other.get("value") and has_extent(one):
        return 1.0
    try:
        size_wh = size_of(one)
        shapes = [_shape(item, size_wh) for item in (one, other)]
    except (OverflowError, DecompressionBombError) as error:
        raise RegionError("The region cannot be read.") from error
    boxes = [_enclosing(shape) for shape in shapes]
    if all(isinstance(shape, tuple) for shape in shapes):
        return iou_xyxy(boxes[0], boxes[1])
    if iou_xyxy(boxes[0], boxes[1]) == 0:
        return 0.0
    low, high = np.min([box[:2] for box in boxes], 0), np.max([box[2:] for box in boxes], 0)
    pixels = any(isinstance(shape, _Pixels) for shape in shapes)
    if pixels:
        low, high = np.floor(low), np.ceil(high)
    scale = 1.0 if pixels else GRID / float(max(high - low))
    window = (low, high, scale)
    return iou_of_masks(_drawn(shapes[0], *window), _drawn(shapes[1], *window))


def has_extent(item: Json) -> bool:
    """Whether a region is an object: neither a key point nor text nor a choice."""
    return str(item.get("type")).startswith(("rectangle", "polygon", "brush", "bitmask", "ellipse"))


def rings_of(item: Json, size_wh: tuple[int, int]) -> list[Corners]:
    """A region's outer lines in pixels of a picture of that size, each (N, 2), to be drawn.

    Raises:
        RegionError: it cannot be read.
    """
    shape = _shape(item, size_wh)
    if isinstance(shape, tuple):
        x0, y0, x1, y1 = shape
        return [np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64)]
    if isinstance(shape, np.ndarray):
        return [shape]
    found, _ = cv2.findContours(shape.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [ring.reshape(-1, 2).astype(np.float64) + 0.5 for ring in found]


def _shape(item: Json, size_wh: tuple[int, int]) -> _Shape:
    value, kind = item.get("value"), str(item.get("type", "")).removesuffix("labels")
    if not isinstance(value, Mapping):
        raise RegionError("The region has no value.")
    scale = np.array(size_wh) / 100
    if kind == "rectangle":
        box = read_box(value, size_wh)
        return box.corners() if box.rotation % 360 else box.enclosing_xyxy()
    if kind in {"brush", "bitmask"}:
        return _Pixels(read_stroke(value, size_of(item), size_wh))
    try:
        if kind == "polygon":
            ring = np.asarray(value.get("points"), np.float64).reshape(-1, 2) * scale
        elif kind == "ellipse":
            center = np.array([float(value["x"]), float(value["y"])]) * scale
            radii = np.array([float(value["radiusX"]), float(value["radiusY"])]) * scale
            turn = np.radians(float(value.get("rotation") or 0))
            around = np.linspace(0, 2 * np.pi, ELLIPSE_CORNERS, endpoint=False)
            x, y = radii[0] * np.cos(around), radii[1] * np.sin(around)
            ring = center + np.stack(
                [x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1
            )  # fmt: skip
        else:
            raise RegionError(f"A region of type '{kind}' has no extent.")
    except (KeyError, TypeError, ValueError):
        raise RegionError("The region's shape cannot be read.") from None
    if len(ring) < 3 or not np.isfinite(ring).all() or np.abs(ring).max() > 1e6:
        raise RegionError("The region has too few usable points.")
    return ring


def _enclosing(shape: _Shape) -> Xyxy:
    if isinstance(shape, tuple):
        return shape
    if isinstance(shape, _Pixels):
        return box_of_mask(shape.mask) or (0.0, 0.0, 0.0, 0.0)
    (x0, y0), (x1, y1) = shape.min(0), shape.max(0)
    return float(x0), float(y0), float(x1), float(y1)


def _drawn(shape: _Shape, low: Corners, high: Corners, scale: float) -> MaskArray:
    """A shape on the cells of a window from ``low`` to ``high``."""
    wide, tall = (max(1, int(side)) for side in np.ceil((high - low) * scale))
    canvas = np.zeros((tall, wide), bool)
    if isinstance(shape, _Pixels):
        x, y = low.astype(int)  # negative where the other shape reaches beyond the picture
        part = shape.mask[max(y, 0) : max(y + tall, 0), max(x, 0) : max(x + wide, 0)]
        top, left = max(-y, 0), max(-x, 0)
        canvas[top : top + part.shape[0], left : left + part.shape[1]] = part
        return canvas
    if isinstance(shape, tuple):
        x0, y0, x1, y1 = shape
        shape = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64)
    fill_ring(canvas, (shape - low) * scale, True)
    return canvas
