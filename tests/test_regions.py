"""Boxes, polygons and masks survive the way to Label Studio and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tator_sdk.geometry import (
    Outline,
    RotatedBox,
    box_of_mask,
    clip_xyxy,
    iou_of_masks,
    iou_xyxy,
    largest_component,
    mask_of_box,
    mask_of_outline,
)
from tator_sdk.polygons import polygons_of_mask
from tator_sdk.regions import (
    RegionError,
    box_value,
    ellipse_value,
    encode_rle,
    geometry_value,
    mask_data_url,
    polygon_value,
    read_box,
    read_point,
    read_stroke,
    rotated_box_of_mask,
)
from tator_sdk.strokes import stroke_points

SIZES = st.tuples(st.integers(3, 4000), st.integers(3, 4000))


@given(SIZES, st.data())
def test_boxes_round_trip(size_wh: tuple[int, int], data: st.DataObject) -> None:
    width, height = size_wh
    x, y = data.draw(st.floats(0, width - 1)), data.draw(st.floats(0, height - 1))
    wide, high = data.draw(st.floats(0.5, width)), data.draw(st.floats(0.5, height))
    box = read_box(box_value((x, y, x + wide, y + high), size_wh), size_wh)
    assert np.allclose(box.enclosing_xyxy(), (x, y, x + wide, y + high), atol=1e-6)


@given(st.floats(-359, 359), st.floats(5, 100), st.floats(5, 100))
def test_rotated_boxes_round_trip(rotation: float, width: float, height: float) -> None:
    box = RotatedBox(200, 150, width, height, rotation)
    back = read_box(box_value(box, (640, 480)), (640, 480))
    assert np.allclose(back.corners(), box.corners(), atol=1e-6)


@settings(deadline=None)
@given(st.floats(0, 359), st.floats(30, 90), st.floats(12, 28))
def test_rotated_box_of_mask_finds_the_rectangle(rotation: float, width: float, height: float) -> None:
    import cv2

    box = RotatedBox(160, 160, width, height, rotation)
    canvas = np.zeros((320, 320), np.uint8)
    cv2.fillPoly(canvas, [np.round(box.corners() * 16).astype(np.int32)], 1, shift=4)
    found = rotated_box_of_mask(canvas > 0, like=rotation)
    assert np.abs(found.corners() - box.corners()).max() < 3.5


@pytest.mark.parametrize(
    ("one", "other", "iou"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),
        ((5, 5, 5, 5), (5, 5, 5, 5), 0.0),
    ],
)
def test_iou(one: tuple[float, ...], other: tuple[float, ...], iou: float) -> None:
    assert iou_xyxy(one, other) == pytest.approx(iou)  # type: ignore[arg-type]


def test_box_of_mask_has_exclusive_edges_and_ignores_strays() -> None:
    mask = np.zeros((40, 50), bool)
    mask[10:20, 5:25] = True
    mask[35, 45] = True
    assert box_of_mask(largest_component(mask)) == (5, 10, 25, 20)
    assert box_of_mask(np.zeros((4, 4), bool)) is None


def test_clip_puts_corners_in_order() -> None:
    assert clip_xyxy((30, 20, -5, 90), (25, 50)) == (0, 20, 25, 50)


def blobs() -> st.SearchStrategy[np.ndarray]:
    """Masks of one or two filled ellipses."""

    def draw(values: tuple[int, int, int, int, int]) -> np.ndarray:
        import cv2

        x, y, a, b, angle = values
        canvas = np.zeros((120, 160), np.uint8)
        cv2.ellipse(canvas, (x, y), (a, b), angle, 0, 360, 1, -1)
        cv2.rectangle(canvas, (x, y), (x + a, y + b), 1, -1)
        return canvas > 0

    return st.tuples(
        st.integers(30, 130), st.integers(30, 90), st.integers(8, 30), st.integers(8, 25), st.integers(0, 180)
    ).map(draw)


@settings(deadline=None, max_examples=60)
@given(blobs())
def test_polygons_cover_their_mask(mask: np.ndarray) -> None:
    import cv2

    value = polygon_value(mask)
    assert value is not None
    points = np.array(value["points"]) / 100 * (160, 120)
    big = np.zeros((480, 640), np.uint8)
    cv2.fillPoly(big, [np.round((points * 4 - 0.5) * 16).astype(np.int32)], 1, shift=4)
    whole = largest_component(mask).repeat(4, 0).repeat(4, 1)
    assert iou_of_masks(big > 0, whole) > 0.95
    assert len(points) <= 60


def test_polygons_of_nothing_and_of_a_pixel() -> None:
    empty = np.zeros((9, 9), bool)
    assert polygons_of_mask(empty) == []
    empty[4, 4] = True
    assert len(polygons_of_mask(empty)) == 1


@settings(deadline=None, max_examples=20)
@given(blobs())
def test_strokes_round_trip_both_ways(mask: np.ndarray) -> None:
    size = (160, 120)
    assert np.array_equal(read_stroke({"rle": encode_rle(mask)}, size, size), mask)
    assert np.array_equal(read_stroke({"imageDataURL": mask_data_url(mask)}, size, size), mask)


@settings(deadline=None, max_examples=40)
@given(blobs())
def test_stroke_points_lie_on_the_stroke(mask: np.ndarray) -> None:
    points = stroke_points(mask)
    assert 1 <= len(points) <= 5
    assert all(mask[int(y), int(x)] for x, y in points)


def test_ellipse_of_a_disc() -> None:
    ys, xs = np.mgrid[:200, :200]
    value = ellipse_value((xs - 99.5) ** 2 + (ys - 99.5) ** 2 < 40**2)
    assert value["x"] == pytest.approx(50, abs=0.1) and value["radiusX"] == pytest.approx(20, abs=0.5)


@pytest.mark.parametrize("kind", ["rectanglelabels", "polygonlabels", "brushlabels", "bitmasklabels", "ellipselabels"])
def test_every_output_can_be_written_without_a_mask(kind: str) -> None:
    assert geometry_value(kind, (10.0, 10.0, 30.0, 40.0), None, (100, 100))


def square(low: float, high: float) -> np.ndarray:
    return np.array([[low, low], [high, low], [high, high], [low, high]])


def test_an_island_in_a_hole_is_seen() -> None:
    mask = mask_of_outline(Outline((square(15, 25), square(0, 40)), (square(5, 35),)), (40, 40))
    assert mask[20, 20] and not mask[10, 10] and mask[2, 2]
    assert int(mask.sum()) == 40 * 40 - 30 * 30 + 10 * 10


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((10, 10, 20, 20), 100),
        ((0, 0, 40, 30), 1200),
        ((-5, -5, 5, 5), 25),
        ((10.5, 10.5, 12.5, 12.5), 4),
        ((10.6, 10.6, 10.9, 10.9), 1),
        ((40, 30, 41, 31), 1),
        (RotatedBox(20, 10, 10, 10, 90), 100),
    ],
)
def test_a_box_has_the_pixels_whose_centres_it_covers(box: tuple[float, ...] | RotatedBox, pixels: int) -> None:
    assert int(mask_of_box(box, (40, 30)).sum()) == pixels  # type: ignore[arg-type]


def test_a_box_without_a_mask_is_a_polygon_of_its_corners_and_an_ellipse_within_it() -> None:
    polygon = geometry_value("polygonlabels", (10.0, 10.0, 20.0, 20.0), None, (100, 100))
    assert polygon == {"points": [[10, 10], [20, 10], [20, 20], [10, 20]], "closed": True}
    ellipse = geometry_value("ellipselabels", (10.0, 10.0, 20.0, 20.0), None, (100, 100))
    assert (ellipse["x"], ellipse["y"]) == pytest.approx((15, 15))
    brush = geometry_value("brushlabels", (10.0, 10.0, 20.0, 20.0), None, (100, 100))
    assert box_of_mask(read_stroke(brush, (100, 100), (100, 100))) == (10, 10, 20, 20)


def test_unknown_output() -> None:
    with pytest.raises(RegionError, match="choices"):
        geometry_value("choices", (0.0, 0.0, 1.0, 1.0), None, (10, 10))


def test_point_on_the_far_border_is_the_last_pixel() -> None:
    assert read_point({"x": 100, "y": 100}, (640, 480)) == (639, 479)
