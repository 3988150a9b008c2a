"""Overlaps whose value is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tator_ml.quality.overlap import iou_of_regions
from tator_sdk.regions import RegionError, encode_rle

from .hand_made import box


def polygon(*points: tuple[float, float], size_wh: tuple[int, int] = (100, 100)) -> dict[str, Any]:
    return {
        "id": "p", "type": "polygonlabels", "original_width": size_wh[0], "original_height": size_wh[1],
        "value": {"points": [list(one) for one in points], "closed": True},
    }  # fmt: skip


def brush(rows: slice, columns: slice) -> dict[str, Any]:
    mask = np.zeros((100, 100), bool)
    mask[rows, columns] = True
    value = {"format": "rle", "rle": encode_rle(mask)}
    return {"id": "b", "type": "brushlabels", "original_width": 100, "original_height": 100, "value": value}


def turned(region: dict[str, Any], rotation: float) -> dict[str, Any]:
    return {**region, "value": {**region["value"], "rotation": rotation}}


SQUARE = ((0, 0), (20, 0), (20, 20), (0, 20))


@pytest.mark.parametrize(
    ("one", "other", "iou"),
    [
        (box("a", "Ball", (10, 10, 20, 20)), box("a", "Ball", (15, 10, 20, 20)), 300 / 500),
        (polygon(*SQUARE), polygon((0, 0), (20, 0), (0, 20)), 200 / 400),  # half of it: a triangle
        (polygon(*SQUARE), box("a", "Ball", (10, 0, 20, 20)), 200 / 600),
        (polygon(*SQUARE), polygon((50, 50), (60, 50), (60, 60)), 0.0),
        (brush(slice(0, 20), slice(0, 20)), brush(slice(0, 20), slice(10, 20)), 0.5),
        (brush(slice(0, 20), slice(0, 20)), polygon((-10, 0), (20, 0), (20, 20), (-10, 20)), 400 / 600),
        (brush(slice(0, 20), slice(0, 20)), polygon((5, -20), (25, -20), (25, 20), (5, 20)), 300 / 900),
        (brush(slice(80, 100), slice(80, 100)), polygon((90, 90), (120, 90), (120, 120), (90, 120)), 100 / 1200),
        (brush(slice(10, 30), slice(10, 30)), box("a", "Ball", (10, 10, 20, 40)), 400 / 800),
        (
            box("a", "Ball", (50, 50, 20, 10)),
            turned(box("a", "Ball", (50, 50, 10, 20)), 90),
            0.0,  # turned about its corner it lies to the left
        ),
        (
            {"type": "ellipselabels", "original_width": 100, "original_height": 100,
             "value": {"x": 50, "y": 50, "radiusX": 20, "radiusY": 10, "rotation": 0}},
            box("a", "Ball", (30, 40, 40, 20)),
            np.pi / 4,
        ),
    ],
)  # fmt: skip
def test_known_overlaps(one: dict[str, Any], other: dict[str, Any], iou: float) -> None:
    assert iou_of_regions(one, other) == pytest.approx(iou, abs=0.004)
    assert iou_of_regions(other, one) == pytest.approx(iou, abs=0.004)


sides = st.floats(1, 40)
places = st.tuples(st.floats(0, 50), st.floats(0, 50), sides, sides)


@given(places, places)
@settings(max_examples=60, deadline=None)
def test_boxes_as_polygons_overlap_as_boxes_do(
    one: tuple[float, float, float, float], other: tuple[float, float, float, float]
) -> None:
    def corners(place: tuple[float, float, float, float]) -> dict[str, Any]:
        x, y, width, height = place
        return polygon((x, y), (x + width, y), (x + width, y + height), (x, y + height))

    exact = iou_of_regions(box("a", "Ball", one), box("a", "Ball", other))
    assert 0 <= exact <= 1 and iou_of_regions(box("a", "Ball", one), box("a", "Ball", one)) == 1
    assert iou_of_regions(corners(one), box("a", "Ball", other)) == pytest.approx(exact, abs=0.02)


def test_points_and_broken_regions_have_none() -> None:
    point = {"type": "keypointlabels", "original_width": 100, "original_height": 100, "value": {"x": 1, "y": 1}}
    for broken in (point, {"type": "rectanglelabels"}, polygon((1, 1), (float("nan"), 2), (3, 3)), polygon((1, 1))):
        with pytest.raises(RegionError):
            iou_of_regions(box("a", "Ball", (0, 0, 10, 10)), broken)
