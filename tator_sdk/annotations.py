"""Annotations → labelled boxes: what a submitted annotation says about each object, whatever tool drew it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL.Image import DecompressionBombError

from label_config.interface import Interface
from tator_sdk.geometry import Xyxy, area_xyxy, box_of_mask, clip_xyxy
from tator_sdk.regions import RegionError, read_box, read_stroke

Json = Mapping[str, Any]
MOST_PIXELS = 2**30  # of a picture; a brush's mask needs memory for each


@dataclass(frozen=True)
class LabelledBox:
    """One object of an annotation.

    Attributes:
        region: the region's id.
        image_name: name of the image tag it lies on; ``item_index`` the page of a list of images.
        label: its class.
        xyxy: the upright box around it, pixels.
        size_wh: the picture's size that the pixels refer to.
    """

    region: str
    image_name: str
    label: str
    xyxy: Xyxy
    size_wh: tuple[int, int]
    item_index: int = 0


def labels_of(item: Json) -> tuple[str, ...]:
    """The labels a region carries, whatever its type calls them."""
    value = item.get("value")
    if not isinstance(value, Mapping):
        return ()
    for key in (str(item.get("type", "")), "labels"):
        found = value.get(key)
        if isinstance(found, list):
            return tuple(str(label) for label in found)
    return ()


def labelled_boxes(result: Sequence[object], interface: Interface) -> list[LabelledBox]:
    """The boxes of an annotation that carry exactly one class of the configuration.

    A plain ``<Rectangle>`` has its label in a second result of the same id. Key points, relations, text, and
    regions that cannot be read are left out: somebody else's broken region must not spoil the others.
    """
    items = [item for item in result if isinstance(item, Mapping)]
    separate = {str(item.get("id")): labels_of(item) for item in items if item.get("type") == "labels"}
    classes = frozenset(interface.labels)
    found = []
    for item in items:
        labels = labels_of(item) or separate.get(str(item.get("id")), ())
        if len(labels) != 1 or labels[0] not in classes:
            continue
        try:
            size_wh = size_of(item)
            box = region_box(item, size_wh)
        except (RegionError, OverflowError, DecompressionBombError):  # integers and pictures beyond all bounds
            continue
        if box is not None and area_xyxy(box) >= 1:
            region, image, page = str(item.get("id")), str(item.get("to_name")), item.get("item_index")
            index = page if isinstance(page, int) else 0
            found.append(LabelledBox(region, image, labels[0], box, size_wh, index))
    return found


def region_box(item: Json, size_wh: tuple[int, int]) -> Xyxy | None:
    """The upright box around a region, clipped to the picture; None where its type has none.

    Raises:
        RegionError: it cannot be read.
    """
    value = item.get("value")
    if not isinstance(value, Mapping):
        raise RegionError("The region has no value.")
    kind = str(item.get("type", "")).removesuffix("labels")
    if kind == "rectangle":
        return clip_xyxy(read_box(value, size_wh).enclosing_xyxy(), size_wh)
    if kind == "polygon":
        return clip_xyxy(_around(value.get("points"), size_wh), size_wh)
    if kind in {"brush", "bitmask"}:
        return box_of_mask(read_stroke(value, size_wh, size_wh))
    if kind == "ellipse":
        return clip_xyxy(_around_ellipse(value, size_wh), size_wh)
    return None


def size_of(item: Json) -> tuple[int, int]:
    """Width and height of the picture that a region refers to, in pixels.

    Raises:
        RegionError: it says none, or one beyond all bounds.
    """
    width, height = item.get("original_width"), item.get("original_height")
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        raise RegionError("The region does not say how large its picture is.")
    if width * height > MOST_PIXELS:
        raise RegionError("The region says that its picture is larger than any.")
    return width, height


def _around(points: object, size_wh: tuple[int, int]) -> Xyxy:
    try:
        corners = np.asarray(points, np.float64).reshape(-1, 2) * np.array(size_wh) / 100
    except (TypeError, ValueError):
        raise RegionError("The polygon's points cannot be read.") from None
    if len(corners) < 3 or not np.isfinite(corners).all():
        raise RegionError("The polygon has too few usable points.")
    (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
    return float(x0), float(y0), float(x1), float(y1)


def _around_ellipse(value: Json, size_wh: tuple[int, int]) -> Xyxy:
    try:
        x, y, radius_x, radius_y = (float(value[key]) for key in ("x", "y", "radiusX", "radiusY"))
        angle = math.radians(float(value.get("rotation") or 0))
    except (KeyError, TypeError, ValueError):
        raise RegionError("The ellipse cannot be read.") from None
    width, height = size_wh
    a, b = radius_x * width / 100, radius_y * height / 100
    reach_x = math.hypot(a * math.cos(angle), b * math.sin(angle))
    reach_y = math.hypot(a * math.sin(angle), b * math.cos(angle))
    center_x, center_y = x * width / 100, y * height / 100
    box = (center_x - reach_x, center_y - reach_y, center_x + reach_x, center_y + reach_y)
    if not all(math.isfinite(edge) for edge in box):
        raise RegionError("The ellipse has no finite size.")
    return box


def addresses_of(interface: Interface, data: Json) -> dict[tuple[str, int], str]:
    """Addresses of a task's pictures, by image tag and page."""
    return {(image.name, page): url for image in interface.images for page, url in enumerate(image.urls(data)) if url}
