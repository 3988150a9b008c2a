"""Outlines as masks: filling what was traced gives the same pixels, however often it is imported."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from label_config.reader import read
from tator_sdk.formats.dataset import LabelledShape, Outline
from tator_sdk.formats.masks import exact_outline
from tator_sdk.geometry import mask_of_outline
from tator_sdk.regions import read_stroke
from tator_sdk.shape_regions import ShapeWriter

RING = np.array([[10.0, 10], [60, 10], [60, 40], [10, 40]])
HOLE = np.array([[20.0, 20], [30, 20], [30, 30], [20, 30]])


def writer(*tags: str) -> ShapeWriter:
    controls = "".join(f'<{tag} name="t{row}" toName="i"><Label value="Car"/></{tag}>' for row, tag in enumerate(tags))
    interface = read(f'<View><Image name="i" value="$image"/>{controls}</View>')
    return ShapeWriter(interface, interface.images[0])


@given(arrays(bool, (9, 11), elements=st.booleans()))
@settings(max_examples=60, deadline=None)
def test_a_traced_mask_is_filled_as_it_was(mask: np.ndarray) -> None:
    outline = exact_outline(mask)
    assert outline is None or np.array_equal(mask_of_outline(outline, (11, 9)), mask)


def test_a_hole_is_kept_by_a_brush_and_counted_by_a_polygon() -> None:
    shape = LabelledShape("Car", Outline((RING,), (HOLE,)))
    (brush,) = writer("PolygonLabels", "BrushLabels").regions([shape], (100, 50), "a")
    assert brush["type"] == "brushlabels"
    mask = read_stroke(brush["value"], (100, 50), (100, 50))
    assert mask[25, 15] and not mask[25, 25] and int(mask.sum()) == 50 * 30 - 100
    polygons = writer("PolygonLabels")
    (polygon,) = polygons.regions([shape], (100, 50), "a")
    assert polygon["value"]["points"][0] == [10, 20] and polygons.written.changed == {"outlines lost their holes": 1}


def test_parts_become_polygons_with_ids_of_their_own() -> None:
    parts = writer("RectangleLabels", "PolygonLabels")
    made = parts.regions([LabelledShape("car", Outline((RING, HOLE)))], (100, 50), "a")
    assert len(made) == 2 == len({one["id"] for one in made}) and sum(parts.written.regions.values()) == 1
    assert made[0]["value"]["polygonlabels"] == ["Car"]
    assert parts.written.changed == {"objects of several parts became a polygon for each": 1}
