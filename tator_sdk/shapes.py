"""Annotations → shapes: what a result says about each object, whatever tool drew it, with its exact outline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL.Image import DecompressionBombError

from label_config.interface import Interface
from tator_sdk.annotations import Json, labels_of, size_of
from tator_sdk.formats.dataset import Outline, Shape
from tator_sdk.formats.masks import exact_outline
from tator_sdk.geometry import RotatedBox
from tator_sdk.regions import RegionError, read_box, read_stroke

ELLIPSE_ERROR = 0.1  # pixels between an ellipse and the corners' chords
FEWEST_CORNERS, MOST_CORNERS = 16, 360
SHAPES = frozenset({"rectangle", "polygon", "brush", "bitmask", "ellipse"})


@dataclass(frozen=True, eq=False)
class RegionShape:
    """One object of an annotation.

    Attributes:
        region: the region's id.
        image_name: name of the image tag it lies on; ``item_index`` the page of a list of images.
        label: its class.
        shape: in pixels of ``size_wh``.
        size_wh: the picture's size as the region has it.
    """

    region: str
    image_name: str
    label: str
    shape: Shape
    size_wh: tuple[int, int]
    item_index: int = 0


@dataclass(frozen=True, eq=False)
class ResultShapes:
    """What a result holds.

    Attributes:
        shapes: the objects.
        left_out: ids of regions that give none, each with the reason.
    """

    shapes: tuple[RegionShape, ...] = ()
    left_out: tuple[tuple[str, str], ...] = field(default=())


def shapes_of_result(result: Sequence[object], interface: Interface) -> ResultShapes:
    """The shapes of an annotation's or a prediction's result that carry exactly one class of the configuration.

    Rectangles (turned ones too), polygons, brushes, bitmasks (with their parts and holes, along the pixels' edges) and
    ellipses. A plain ``<Rectangle>`` has its label in a second result of the same id. Text, choices and relations are
    no objects and passed over.
    """
    items = [item for item in result if isinstance(item, Mapping)]
    separate = {str(item.get("id")): labels_of(item) for item in items if item.get("type") == "labels"}
    classes = frozenset(interface.labels)
    shapes, left_out = [], []
    for item in items:
        kind, region = str(item.get("type", "")).removesuffix("labels"), str(item.get("id"))
        if kind == "keypoint":
            left_out.append((region, "a key point has no extent"))
        if kind not in SHAPES:
            continue
        labels = labels_of(item) or separate.get(region, ())
        if len(labels) != 1 or labels[0] not in classes:
            said = ", ".join(labels) or "none"
            left_out.append((region, f"it has not one class of the configuration, but {said}"))
            continue
        try:
            size_wh = size_of(item)
            page = item.get("item_index")
            shape = _shape(kind, item.get("value"), size_wh)
            index = page if isinstance(page, int) else 0
            shapes.append(RegionShape(region, str(item.get("to_name")), labels[0], shape, size_wh, index))
        except (RegionError, OverflowError, DecompressionBombError) as error:
            left_out.append((region, str(error).rstrip(".")))
    return ResultShapes(tuple(shapes), tuple(left_out))


def scaled(shape: Shape, factors: tuple[float, float]) -> Shape:
    """A shape on the same picture in another size, by factors of its width and its height.

    A turned box stays a rectangle only where both are about the same.
    """
    by_x, by_y = factors
    if isinstance(shape, Outline):
        both = np.array(factors)
        return Outline(tuple(ring * both for ring in shape.parts), tuple(ring * both for ring in shape.holes))
    if isinstance(shape, RotatedBox):
        mean = (by_x + by_y) / 2
        return RotatedBox(shape.x * by_x, shape.y * by_y, shape.width * mean, shape.height * mean, shape.rotation)
    return shape[0] * by_x, shape[1] * by_y, shape[2] * by_x, shape[3] * by_y


def _shape(kind: str, value: object, size_wh: tuple[int, int]) -> Shape:
    if not isinstance(value, Mapping):
        raise RegionError("The region has no value.")
    if kind == "rectangle":
        box = read_box(value, size_wh)
        return box if box.rotation % 360 else (box.x, box.y, box.x + box.width, box.y + box.height)
    if kind == "polygon":
        return _polygon(value.get("points"), size_wh)
    if kind == "ellipse":
        return _ellipse(value, size_wh)
    outline = exact_outline(read_stroke(value, size_wh, size_wh))
    if outline is None:
        raise RegionError("The mask is empty.")
    return outline


def _polygon(points: object, size_wh: tuple[int, int]) -> Outline:
    try:
        ring = np.asarray(points, np.float64).reshape(-1, 2) * np.array(size_wh) / 100
    except (TypeError, ValueError):
        raise RegionError("The polygon's points cannot be read.") from None
    if len(ring) > 3 and np.array_equal(ring[0], ring[-1]):
        ring = ring[:-1]
    if len(ring) < 3 or not np.isfinite(ring).all() or float(np.ptp(ring, axis=0).min()) <= 0:
        raise RegionError("The polygon has too few usable points.")
    return Outline((ring,))


def _ellipse(value: Json, size_wh: tuple[int, int]) -> Outline:
    try:
        numbers = [float(value[key]) for key in ("x", "y", "radiusX", "radiusY")]
        angle = math.radians(float(value.get("rotation") or 0))
    except (KeyError, TypeError, ValueError):
        raise RegionError("The ellipse cannot be read.") from None
    x, y, a, b = np.array(numbers) * np.tile(np.array(size_wh), 2) / 100
    if not np.isfinite([x, y, a, b, angle]).all() or min(a, b) <= 0:
        raise RegionError("The ellipse has no area.")
    needed = math.pi / math.acos(max(0.0, 1 - ELLIPSE_ERROR / max(a, b, 2 * ELLIPSE_ERROR)))
    turns = 2 * math.pi * np.arange(int(min(max(needed, FEWEST_CORNERS), MOST_CORNERS)) + 1)
    turns = turns / len(turns)
    along, down = a * np.cos(turns), b * np.sin(turns)
    ring = np.stack(
        [along * math.cos(angle) - down * math.sin(angle), along * math.sin(angle) + down * math.cos(angle)], 1
    )
    return Outline((ring + np.array([x, y]),))
