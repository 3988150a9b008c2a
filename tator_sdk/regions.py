"""Boxes, polygons and masks in pixels ↔ Label Studio's regions in percent.

All percentages refer to the picture as the browser shows it, EXIF rotation applied.
The region format is Label Studio's, https://labelstud.io/guide/predictions (and PROTOCOL.md).
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image

from label_config.interface import Control
from tator_sdk.errors import TatorError
from tator_sdk.geometry import MaskArray, RotatedBox, Xyxy, iou_of_masks, mask_of_box
from tator_sdk.images import ImageError, decode_grey
from tator_sdk.polygons import polygons_of_mask

Region = dict[str, Any]
MOST_STROKE_PIXELS = 100_000_000
"""Of a painted picture, where its own is smaller: the two may differ, but not by any size."""


class RegionError(TatorError):
    """A region that cannot be understood; the message is for the annotator."""


def _number(value: Mapping[str, Any], key: str) -> float:
    try:
        number = float(value[key])
    except (KeyError, TypeError, ValueError):
        raise RegionError(f"The prompt has no usable '{key}'; draw it again.") from None
    if not math.isfinite(number):
        raise RegionError(f"The prompt's '{key}' is not a finite number; draw it again.")
    return number


def read_box(value: Mapping[str, Any], size_wh: tuple[int, int]) -> RotatedBox:
    """A rectangle's ``value`` → pixels; a rectangle drawn backwards is put in order.

    Raises:
        RegionError: coordinates are missing, not numbers, or enclose nothing.
    """
    width, height = size_wh
    x, y = _number(value, "x") * width / 100, _number(value, "y") * height / 100
    wide, high = _number(value, "width") * width / 100, _number(value, "height") * height / 100
    rotation = _number(value, "rotation") if value.get("rotation") else 0.0
    if rotation == 0:
        x, wide = min(x, x + wide), abs(wide)
        y, high = min(y, y + high), abs(high)
    if wide < 1e-6 or high < 1e-6:
        raise RegionError("The box has no area; draw it a little larger.")
    return RotatedBox(x, y, wide, high, rotation)


def read_point(value: Mapping[str, Any], size_wh: tuple[int, int]) -> tuple[float, float]:
    """A keypoint's ``value`` → x and y in pixels, moved onto the picture if it lies on its border.

    Raises:
        RegionError: coordinates are missing, or the point lies clearly outside the picture.
    """
    width, height = size_wh
    x, y = _number(value, "x"), _number(value, "y")
    slack = 1.0  # percent: the editor lets a click on the frame through
    if not (-slack <= x <= 100 + slack and -slack <= y <= 100 + slack):
        raise RegionError("The point lies outside the picture; click on the object.")
    return (
        min(max(x * width / 100, 0.0), width - 1.0),
        min(max(y * height / 100, 0.0), height - 1.0),
    )


def read_stroke(value: Mapping[str, Any], drawn_wh: tuple[int, int], size_wh: tuple[int, int]) -> MaskArray:
    """A brush's ``value`` → mask (H, W) in the picture's size.

    Args:
        value: ``format: rle`` with ``rle``, or ``imageDataURL``.
        drawn_wh: ``original_width`` and ``original_height`` of the region, which the RLE refers to.
        size_wh: the picture's size; the mask is brought to it where the two differ.

    Raises:
        RegionError: the stroke cannot be decoded or is empty.
    """
    width, height = drawn_wh
    try:
        if "imageDataURL" in value:
            data = base64.b64decode(str(value["imageDataURL"]).split(",", 1)[1])
            drawn = decode_grey(data, max(MOST_STROKE_PIXELS, size_wh[0] * size_wh[1])) > 127
        else:
            drawn = _decode_rle(value["rle"], drawn_wh)
    except (KeyError, IndexError, ValueError, OSError, TypeError, OverflowError, ImageError):
        raise RegionError("The brush stroke could not be read; paint it again.") from None
    if drawn.shape != (height, width) or drawn_wh != size_wh:
        drawn = cv2.resize(drawn.astype(np.uint8), size_wh, interpolation=cv2.INTER_NEAREST) > 0
    if not drawn.any():
        raise RegionError("The brush stroke is empty; paint over the object.")
    return np.asarray(drawn, bool)


def load_brush_codec() -> None:
    """Import what masks are coded with, which takes seconds that the first stroke would wait for."""
    import label_studio_sdk.converter.brush  # noqa: F401


def _decode_rle(rle: Sequence[int], size_wh: tuple[int, int]) -> MaskArray:
    from label_studio_sdk.converter.brush import decode_rle  # seconds of imports

    width, height = size_wh
    declared = int.from_bytes(bytes(rle[:4]), "big")
    if declared != 4 * width * height:
        raise RegionError("The brush stroke belongs to a picture of another size; paint it again.")
    pixels = np.asarray(decode_rle(list(rle)), np.uint8).reshape(height, width, 4)
    return np.asarray(pixels[..., 3] > 127)


def encode_rle(mask: MaskArray) -> list[int]:
    """Mask (H, W) → Label Studio's RGBA run-length form."""
    from label_studio_sdk.converter.brush import mask2rle

    return [int(value) for value in mask2rle(mask.astype(np.uint8) * 255)]


def mask_data_url(mask: MaskArray) -> str:
    """Mask (H, W) → greyscale PNG as a ``data:`` address, as bitmask tags and the newer dialect take it."""
    stream = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def rotated_box_of_mask(mask: MaskArray, like: float = 0.0) -> RotatedBox:
    """Smallest rotated rectangle around a mask; its rotation is the one closest to ``like`` degrees."""
    ys, xs = np.nonzero(mask)
    pixels = np.concatenate([np.stack([xs + dx, ys + dy], 1) for dx in (0, 1) for dy in (0, 1)])
    corners = cv2.boxPoints(cv2.minAreaRect(cv2.convexHull(pixels.astype(np.float32)))).astype(np.float64)
    choices = []
    for turn in range(4):
        origin, along, _, down = np.roll(corners, -turn, axis=0)
        edge = along - origin
        rotation = math.degrees(math.atan2(edge[1], edge[0]))
        off = abs((rotation - like + 180) % 360 - 180)
        sides = float(np.hypot(*edge)), float(np.hypot(*(down - origin)))
        choices.append((off, RotatedBox(float(origin[0]), float(origin[1]), *sides, rotation)))
    return min(choices, key=lambda choice: choice[0])[1]


def box_value(box: RotatedBox | Xyxy, size_wh: tuple[int, int]) -> dict[str, float]:
    """A box in pixels → a rectangle's ``value`` in percent."""
    width, height = size_wh
    if not isinstance(box, RotatedBox):
        box = RotatedBox(box[0], box[1], box[2] - box[0], box[3] - box[1])
    return {
        "x": 100 * box.x / width,
        "y": 100 * box.y / height,
        "width": 100 * box.width / width,
        "height": 100 * box.height / height,
        "rotation": box.rotation % 360,
    }


def polygon_value(mask: MaskArray) -> dict[str, Any] | None:
    """The outline of a mask's largest part → a polygon's ``value``; None where it is too small for one."""
    height, width = mask.shape
    outlines = polygons_of_mask(mask)
    if not outlines:
        return None
    scaled = outlines[0] * (100 / np.array([width, height]))
    return {"points": [[float(x), float(y)] for x, y in scaled], "closed": True}


def ellipse_value(mask: MaskArray) -> dict[str, float]:
    """Ellipse with the mask's centre and second moments → ``value`` in percent."""
    height, width = mask.shape
    ys, xs = np.nonzero(mask)
    center = np.array([xs.mean() + 0.5, ys.mean() + 0.5])
    spread = np.cov(np.stack([xs, ys])) if len(xs) > 1 else np.eye(2) / 16
    lengths, axes = np.linalg.eigh(np.atleast_2d(spread) + np.eye(2) / 12)
    major, minor = 2 * math.sqrt(lengths[1]), 2 * math.sqrt(lengths[0])
    rotation = math.degrees(math.atan2(axes[1, 1], axes[0, 1]))
    return {
        "x": 100 * float(center[0]) / width,
        "y": 100 * float(center[1]) / height,
        "radiusX": 100 * major / width,
        "radiusY": 100 * minor / height,
        "rotation": rotation % 360,
    }


def geometry_value(
    result_type: str, box: RotatedBox | Xyxy, mask: MaskArray | None, size_wh: tuple[int, int]
) -> dict[str, Any]:
    """What goes into ``value`` for a result type, label aside.

    Args:
        result_type: Label Studio's ``type``, e.g. ``rectanglelabels``.
        box: in pixels.
        mask: (H, W); a type that needs one gets the box's area where there is none.
        size_wh: of the picture.

    Raises:
        RegionError: the type takes no geometry from Tator.
    """
    kind = result_type.removesuffix("labels")
    if kind == "rectangle":
        return box_value(box, size_wh)
    drawn = mask is not None and bool(mask.any())
    if kind == "polygon" and not drawn:
        return {"points": _percent_corners(box, size_wh), "closed": True}
    filled = mask if mask is not None and drawn else mask_of_box(box, size_wh)
    if kind == "polygon":
        return polygon_value(filled) or {"points": _percent_corners(box, size_wh), "closed": True}
    if kind == "brush":
        return {"format": "rle", "rle": encode_rle(filled)}
    if kind == "bitmask":
        return {"imageDataURL": mask_data_url(filled)}
    if kind == "ellipse":
        return ellipse_value(filled)
    raise RegionError(f"Tator cannot write regions of type '{result_type}'.")


def _percent_corners(box: RotatedBox | Xyxy, size_wh: tuple[int, int]) -> list[list[float]]:
    turned = box if isinstance(box, RotatedBox) else RotatedBox(box[0], box[1], box[2] - box[0], box[3] - box[1])
    scaled = turned.corners() * (100 / np.array(size_wh))
    return [[float(x), float(y)] for x, y in scaled]


def agreement_of_boxes(one: RotatedBox, other: RotatedBox, size_wh: tuple[int, int]) -> float:
    """IoU of two rotated boxes, 0..1, on the picture's pixel grid."""
    return iou_of_masks(mask_of_box(one, size_wh), mask_of_box(other, size_wh))


def region(
    *,
    region_id: str,
    from_name: str,
    to_name: str,
    result_type: str,
    value: Mapping[str, Any],
    labels: Sequence[str],
    size_wh: tuple[int, int],
    score: float | None = None,
    info: Sequence[str] = (),
) -> Region:
    """A complete region as the editor takes it.

    Args:
        region_id: the prompt's own id where the answer replaces the prompt.
        from_name: control tag; ``to_name`` the image tag.
        to_name: image tag.
        result_type: e.g. ``rectanglelabels``.
        value: geometry in percent.
        labels: written under the type's own key when it takes labels.
        size_wh: the picture's size in pixels.
        score: 0..1, shown in the region list.
        info: lines for the Info panel (``meta.text``).
    """
    written = dict(value)
    if result_type.endswith("labels"):
        written[result_type] = list(labels)
    made: Region = {
        "id": region_id,
        "from_name": from_name,
        "to_name": to_name,
        "type": result_type,
        "value": written,
        "original_width": size_wh[0],
        "original_height": size_wh[1],
        "image_rotation": 0,
    }
    if score is not None:
        made["score"] = round(float(score), 4)
    if info:
        made["meta"] = {"text": list(info)}
    return made


def labelled_regions(
    output: Control,
    image_name: str,
    region_id: str,
    value: Mapping[str, Any],
    labels: Sequence[str],
    size_wh: tuple[int, int],
    *,
    score: float | None = None,
    info: Sequence[str] = (),
) -> list[Region]:
    """One object as results of a tag: two with one id where its labels stand in a ``<Labels>`` beside it.

    Args:
        output: the tag that takes it.
        image_name: name of the image tag.
        region_id: the id it takes.
        value: geometry in percent.
        labels: that it carries.
        size_wh: the picture's size in pixels.
        score: 0..1, for the region list.
        info: lines for the Info panel.
    """
    written = region(
        region_id=region_id,
        from_name=output.name,
        to_name=image_name,
        result_type=output.result_type,
        value=value,
        labels=labels,
        size_wh=size_wh,
        score=score,
        info=info,
    )
    shared = output.labels_from
    if labels and shared not in (None, output.name):
        twin = {"from_name": shared, "type": "labels", "value": {**written["value"], "labels": list(labels)}}
        return [written, {**written, **twin}]
    return [written]
