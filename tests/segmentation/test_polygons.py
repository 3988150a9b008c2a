"""Outlines of masks: the stated IoU by somebody else's measure, few vertices, holes and parts, and never crossing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tator_sdk.fitting import Coverage, Edges
from tator_sdk.geometry import Outline, iou_of_masks, signed_area
from tator_sdk.polygons import _joined, outline_of_mask, polygons_of_mask


def painted(outline: Outline, shape: tuple[int, int], mask: np.ndarray | None = None) -> np.ndarray:
    """The pixels whose middles lie inside by the even-odd rule, counted one ray at a time: none of what is tested.

    A middle that lies on an edge counts as ``mask`` has it.
    """
    ys, xs = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside, on = np.zeros(shape, bool), np.zeros(shape, bool)
    for ring in (*outline.parts, *outline.holes):
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, 0), strict=True):
            if y0 != y1:
                passed = (y0 > ys) != (y1 > ys)
                off = x0 + (ys - y0) * (x1 - x0) / (y1 - y0) - xs
                inside ^= passed & (off > 0)
                on |= passed & (np.abs(off) < 1e-9)
    return inside if mask is None else np.where(on, mask, inside)


@st.composite
def blobs(draw: st.DrawFn) -> np.ndarray:
    """A smooth mask of several parts and holes, some at the picture's edge."""
    seed = draw(st.integers(0, 2**31 - 1))
    spread = draw(st.sampled_from([2.0, 5.0, 11.0]))
    rng = np.random.default_rng(seed)
    field = cv2.GaussianBlur(rng.normal(size=(90, 120)).astype(np.float32), (0, 0), spread)
    return _joined(field > np.quantile(field, draw(st.sampled_from([0.3, 0.6, 0.9]))))


@settings(deadline=None, max_examples=40)
@given(blobs(), st.sampled_from([0.9, 0.98, 0.995]))
def test_the_stated_iou_without_crossings(mask: np.ndarray, least: float) -> None:
    outline = outline_of_mask(mask, least)
    assert outline is not None
    rings = [*outline.parts, *outline.holes]
    assert not Edges.of(rings).broken()
    assert all(signed_area(ring) > 0 for ring in outline.parts)
    assert all(signed_area(ring) < 0 for ring in outline.holes)
    assert np.concatenate(rings).min() >= 0 and (np.concatenate(rings).max(0) <= (120, 90)).all()
    assert iou_of_masks(painted(outline, mask.shape, mask), mask) >= least


def disc(side: int) -> np.ndarray:
    ys, xs = np.mgrid[:side, :side]
    return np.asarray((xs - side / 2) ** 2 + (ys - side / 2) ** 2 < (0.45 * side) ** 2)


def test_holes_and_parts_stay() -> None:
    mask = np.zeros((200, 200), bool)
    mask[10:120, 10:120] = disc(110)
    mask[50:80, 50:80] &= ~disc(30)
    mask[150:180, 140:190] = True
    outline = outline_of_mask(mask)
    assert outline is not None and len(outline.parts) == 2 and len(outline.holes) == 1
    assert outline.enclosing_xyxy() == pytest.approx((15.5, 15.5, 190, 180), abs=1.5)
    assert len(polygons_of_mask(mask)) == 2 and iou_of_masks(painted(outline, mask.shape), mask) > 0.97


def test_specks_go_and_small_parts_stay() -> None:
    mask = np.zeros((200, 200), bool)
    mask[20:120, 20:120] = True
    mask[150, 150] = mask[30, 30] = True
    mask[40, 40] = False  # a hole of a pixel
    mask[170:180, 170:180] = True
    outline = outline_of_mask(mask)
    assert outline is not None and [len(ring) for ring in outline.parts] == [4, 4] and not outline.holes


@pytest.mark.parametrize("side", [40, 200, 700])
def test_a_disc_takes_fewer_vertices_than_douglas_and_peucker(side: int) -> None:
    mask = disc(side)
    outline = outline_of_mask(mask)
    assert outline is not None
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    plain = []
    for epsilon in np.linspace(0.25, side / 8, 300):
        ring = cv2.approxPolyDP(contours[0], float(epsilon), True)
        if iou_of_masks(cv2.fillPoly(np.zeros(mask.shape, np.uint8), [ring], 1) > 0, mask) >= 0.98:
            plain.append(len(ring))
    # a regular polygon of N sides and equal area differs from its circle by 2.53 / N², so 12 sides reach 0.98
    assert len(outline.parts[0]) <= min(14, 0.75 * min(plain))


def test_pixels_that_touch_at_a_corner_are_joined() -> None:
    mask = np.zeros((40, 40), bool)
    mask[5:20, 5:20] = mask[20:35, 20:35] = True
    outline = outline_of_mask(mask)
    assert outline is not None and len(outline.parts) == 1 and not Edges.of([*outline.parts]).broken()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_tiny_masks(count: int) -> None:
    mask = np.zeros((9, 9), bool)
    mask[4, 4 : 4 + count] = True
    outline = outline_of_mask(mask)
    assert outline is not None and np.array_equal(painted(outline, mask.shape), mask)


def test_nothing_and_everything() -> None:
    assert outline_of_mask(np.zeros((5, 5), bool)) is None
    whole = outline_of_mask(np.ones((30, 50), bool))
    assert whole is not None and whole.enclosing_xyxy() == (0, 0, 50, 30) and len(whole.parts[0]) == 4


def test_a_tolerance_instead_of_an_iou() -> None:
    mask = disc(100)
    counts = []
    for epsilon in (0.5, 2.0, 8.0):
        outline = outline_of_mask(mask, epsilon_pixels=epsilon)
        assert outline is not None
        counts.append(len(outline.parts[0]))
    assert counts[0] > counts[1] > counts[2] >= 4


def test_noise_ends_and_does_not_cross() -> None:
    mask = np.random.default_rng(1).random((60, 60)) > 0.7
    outline = outline_of_mask(mask)
    assert outline is not None and not Edges.of([*outline.parts, *outline.holes]).broken()


def test_pixels_are_counted_exactly() -> None:
    """Against even-odd at every pixel's middle, of a ring that turns in and out."""
    ring = np.array([(3.2, 2.7), (25.1, 8.3), (12.4, 14.2), (27.9, 26.6), (4.5, 21.3), (9.6, 12.1)])
    mask = np.random.default_rng(2).random((32, 32)) > 0.5
    inside = painted(Outline((ring,)), mask.shape)
    edges = Edges.of([ring])
    covered, shared = Coverage(mask).edge_sums(edges.points, edges.points[edges.after])
    assert abs(covered.sum()) == inside.sum() and abs(shared.sum()) == (inside & mask).sum()
    assert Coverage(mask).iou(edges) == pytest.approx(iou_of_masks(inside, mask))
