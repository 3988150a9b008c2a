"""What regions of every tool become as shapes, and which are left out with a reason."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from label_config.reader import read
from tator_sdk.annotations import labelled_boxes
from tator_sdk.formats.dataset import Outline, enclosing_xyxy
from tator_sdk.geometry import RotatedBox, signed_area
from tator_sdk.regions import box_value, encode_rle, mask_data_url
from tator_sdk.shapes import ResultShapes, scaled, shapes_of_result
from tests.formats.material import same_shape

SIZE_WH = (400, 200)
INTERFACE = read(
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image"><Label value="Car"/>'
    '<Label value="Van"/></RectangleLabels><PolygonLabels name="polygon" toName="image"><Label value="Car"/>'
    '</PolygonLabels><BrushLabels name="brush" toName="image"><Label value="Car"/></BrushLabels></View>'
)


def item(kind: str, value: dict[str, Any], label: str | None = "Car", **more: Any) -> dict[str, Any]:
    labels = {kind: [label]} if label and kind.endswith("labels") else {}
    return {"id": "r", "type": kind, "from_name": "x", "to_name": "image", "original_width": SIZE_WH[0],
            "original_height": SIZE_WH[1], "value": {**value, **labels}, **more}  # fmt: skip


def shapes(*items: Any) -> ResultShapes:
    return shapes_of_result(list(items), INTERFACE)


def only(*items: Any) -> Any:
    (one,) = shapes(*items).shapes
    return one.shape


def test_rectangles_upright_and_turned() -> None:
    upright = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}
    assert only(item("rectanglelabels", upright)) == pytest.approx((40, 40, 160, 120))
    turned = RotatedBox(150, 40, 80, 30, 40)
    found = only(item("rectanglelabels", box_value(turned, SIZE_WH)))
    assert isinstance(found, RotatedBox) and same_shape(found, turned, 1e-6)


def test_a_plain_rectangle_has_its_label_beside_it() -> None:
    value = {"x": 10, "y": 20, "width": 30, "height": 40}
    one = shapes(item("rectangle", value), item("labels", {**value, "labels": ["Van"]}, None)).shapes[0]
    assert one.label == "Van" and one.region == "r" and one.image_name == "image" and one.size_wh == SIZE_WH


def test_polygons_keep_their_corners() -> None:
    found = only(item("polygonlabels", {"points": [[10, 10], [50, 10], [30, 80], [10, 10]]}))
    assert same_shape(found, Outline((np.array([[40, 20], [200, 20], [120, 160]], np.float64),)), 1e-9)


@pytest.mark.parametrize("kind", ["brushlabels", "bitmasklabels"])
def test_brushes_keep_parts_and_holes(kind: str) -> None:
    mask = np.zeros((200, 400), bool)
    mask[20:80, 30:130] = True
    mask[40:50, 60:80] = False
    mask[100:120, 300:340] = True
    value = (
        {"format": "rle", "rle": encode_rle(mask)} if kind == "brushlabels" else {"imageDataURL": mask_data_url(mask)}
    )
    found = only(item(kind, value))
    assert len(found.parts) == 2 and len(found.holes) == 1
    assert sorted(abs(signed_area(ring)) for ring in (*found.parts, *found.holes)) == [200, 800, 6000]
    assert enclosing_xyxy(found) == (30, 20, 340, 120)


@pytest.mark.parametrize("rotation", [0, 30, 90, 200])
def test_ellipses(rotation: float) -> None:
    found = only(item("ellipselabels", {"x": 50, "y": 50, "radiusX": 10, "radiusY": 30, "rotation": rotation}))
    assert abs(signed_area(found.parts[0])) == pytest.approx(math.pi * 40 * 60, rel=0.005)
    value = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 30, "rotation": rotation}
    (box,) = labelled_boxes([item("ellipselabels", value)], INTERFACE)
    assert enclosing_xyxy(found) == pytest.approx(box.xyxy, abs=0.5)


GOOD = {"x": 10, "y": 20, "width": 30, "height": 40}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (item("rectanglelabels", GOOD, None), "none"),
        (item("rectanglelabels", GOOD, "Ghost"), "Ghost"),
        (item("rectanglelabels", {**GOOD, "rectanglelabels": ["Car", "Van"]}, None), "Car, Van"),
        (item("rectanglelabels", {**GOOD, "width": 0}), "no area"),
        (item("rectanglelabels", {**GOOD, "x": None}), "'x'"),
        (item("rectanglelabels", GOOD, original_width=None), "how large"),
        (item("rectanglelabels", GOOD, original_width=10**9, original_height=10**9), "larger than any"),
        (item("polygonlabels", {"points": [[1, 1], [2, 2]]}), "too few"),
        (item("polygonlabels", {"points": [[1, 1], [2, 1], [5, 1]]}), "too few"),
        (item("polygonlabels", {"points": "x"}), "cannot be read"),
        (item("brushlabels", {"format": "rle", "rle": [1, 2, 3]}), "another size"),
        (item("ellipselabels", {"x": 1, "y": 1, "radiusX": 0, "radiusY": 3}), "no area"),
        (item("keypointlabels", {"x": 1, "y": 1, "width": 1}), "no extent"),
        ({**item("rectanglelabels", GOOD), "value": None}, "class"),
    ],
)  # fmt: skip
def test_what_gives_no_shape_is_told_and_harms_no_other(bad: dict[str, Any], said: str) -> None:
    found = shapes(
        {"id": "q", "type": "choices", "value": {"choices": ["x"]}}, "rubbish", bad, item("rectanglelabels", GOOD)
    )
    assert len(found.shapes) == 1
    ((region, reason),) = found.left_out
    assert region == "r" and said in reason


def test_shapes_on_the_picture_in_another_size() -> None:
    assert scaled((1, 2, 3, 4), (2, 3)) == (2, 6, 6, 12)
    box = RotatedBox(10, 20, 30, 40, 30)
    assert same_shape(scaled(box, (2, 2)), RotatedBox(20, 40, 60, 80, 30), 1e-9)
    outline = Outline(
        (np.array([[0, 0], [10, 0], [0, 10]], np.float64),), (np.array([[1, 1], [2, 1], [1, 2]], np.float64),)
    )
    assert scaled(outline, (2, 2)).holes[0].tolist() == [[2, 2], [4, 2], [2, 4]]  # type: ignore[union-attr]
