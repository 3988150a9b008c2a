"""Annotations → labelled boxes, whatever tool drew the region and whatever else stands beside it."""

from __future__ import annotations

import base64
import io
import math
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from label_config.reader import read
from tator_sdk.annotations import addresses_of, labelled_boxes, labels_of
from tator_sdk.regions import encode_rle, mask_data_url
from tests.learning.material import rectangle

CONFIG = """<View><Image name="image" value="$image"/><Image name="pages" valueList="$pages"/>
<RectangleLabels name="boxes" toName="image"><Label value="Car"/><Label value="Van"/>
<Label value="Tweak" model_assist="tweak"/></RectangleLabels>
<PolygonLabels name="outlines" toName="image"><Label value="Car"/></PolygonLabels>
<BrushLabels name="strokes" toName="image"><Label value="Car"/></BrushLabels>
<EllipseLabels name="ellipses" toName="image"><Label value="Car"/></EllipseLabels>
<Rectangle name="plain" toName="image"/><Labels name="labels" toName="image"><Label value="Bus"/></Labels>
<KeyPointLabels name="points" toName="image"><Label value="Car"/></KeyPointLabels></View>"""
INTERFACE = read(CONFIG)
WIDTH, HEIGHT = 200, 100


def region(kind: str, label: str = "Car", **value: Any) -> dict[str, Any]:
    if label and kind.endswith("labels"):
        value[kind] = [label]
    return {
        "id": "r", "from_name": "x", "to_name": "image", "type": kind, "value": value,
        "original_width": WIDTH, "original_height": HEIGHT,
    }  # fmt: skip


def only(*items: Any) -> Any:
    (found,) = labelled_boxes(items, INTERFACE)
    return found


def test_rectangle() -> None:
    found = only({**region("rectanglelabels", x=10, y=20, width=30, height=40, rotation=0), "item_index": 2})
    assert found.xyxy == pytest.approx((20, 20, 80, 60)) and found.size_wh == (WIDTH, HEIGHT)
    assert (found.region, found.image_name, found.label, found.item_index) == ("r", "image", "Car", 2)
    assert only(region("rectanglelabels", x=90, y=-10, width=30, height=40)).xyxy == pytest.approx((180, 0, 200, 30))
    assert only(region("rectanglelabels", x=40, y=60, width=-30, height=-40)).xyxy == pytest.approx((20, 20, 80, 60))


@pytest.mark.parametrize("degrees", [30, 90, 200, -45])
def test_rotated_rectangle_is_enclosed_in_pixels(degrees: float) -> None:
    """Label Studio turns about the top-left corner, in pixels and not in percent."""
    found = only(region("rectanglelabels", x=50, y=50, width=10, height=20, rotation=degrees))
    a = math.radians(degrees)
    corners = [(0.0, 0.0)]
    for dx, dy in ((20, 0), (20, 20), (0, 20)):
        corners.append((dx * math.cos(a) - dy * math.sin(a), dx * math.sin(a) + dy * math.cos(a)))
    xs, ys = [100 + x for x, _ in corners], [50 + y for _, y in corners]
    assert found.xyxy == pytest.approx((min(xs), min(ys), max(xs), max(ys)))


def test_polygon() -> None:
    found = only(region("polygonlabels", points=[[10, 10], [50, 30], [20, 90]], closed=True))
    assert found.xyxy == pytest.approx((20, 10, 100, 90))


@pytest.mark.parametrize("form", ["rle", "png"])
def test_brush(form: str) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[20:40, 30:90] = mask[50, 120] = True
    value = {"format": "rle", "rle": encode_rle(mask)} if form == "rle" else {"imageDataURL": mask_data_url(mask)}
    assert only(region("brushlabels", **value)).xyxy == (30, 20, 121, 51)


@pytest.mark.parametrize("rotation", [0, 30, 90, 135])
def test_ellipse_against_its_outline(rotation: float) -> None:
    found = only(region("ellipselabels", x=50, y=50, radiusX=15, radiusY=10, rotation=rotation))
    t, a = np.linspace(0, 2 * np.pi, 10_000), math.radians(rotation)
    xs = 100 + 30 * np.cos(t) * math.cos(a) - 10 * np.sin(t) * math.sin(a)
    ys = 50 + 30 * np.cos(t) * math.sin(a) + 10 * np.sin(t) * math.cos(a)
    assert found.xyxy == pytest.approx((xs.min(), ys.min(), xs.max(), ys.max()), abs=1e-3)


def test_a_plain_rectangle_has_its_label_beside_it() -> None:
    box = region("rectangle", x=10, y=20, width=30, height=40)
    label = region("labels", "", x=10, y=20, width=30, height=40, labels=["Bus"])
    for pair in ((box, label), (label, box)):
        assert only(*pair).label == "Bus"
    assert labelled_boxes([box], INTERFACE) == []
    assert only(box, label, {**region("choices", "", choices=["Car"]), "id": "r"}).label == "Bus"


@pytest.mark.parametrize("label", ["Tweak", "Unknown", ""])
def test_what_is_no_class_is_no_example(label: str) -> None:
    assert labelled_boxes([region("rectanglelabels", label, x=1, y=1, width=9, height=9)], INTERFACE) == []


def test_only_exactly_one_class_counts() -> None:
    two = region("rectanglelabels", x=1, y=1, width=9, height=9)
    two["value"]["rectanglelabels"] = ["Car", "Van"]
    assert labelled_boxes([two], INTERFACE) == [] and labels_of(two) == ("Car", "Van")


PNG = io.BytesIO()
Image.new("L", (3, 3), 255).save(PNG, "PNG")
HUGE_HEADER = bytearray(PNG.getvalue())
HUGE_HEADER[16:24] = (60_000).to_bytes(4, "big") * 2  # claims 3.6 gigapixels
HUGE_HEADER[29:33] = zlib.crc32(HUGE_HEADER[12:29]).to_bytes(4, "big")


def url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


BROKEN: list[Any] = [
    None, 7, "text", [], {}, {"type": "rectanglelabels"},
    region("rectanglelabels"),
    region("rectanglelabels", x="a", y=1, width=1, height=1),
    region("rectanglelabels", x=math.nan, y=1, width=1, height=1),
    region("rectanglelabels", x=10**400, y=1, width=1, height=1),
    region("rectanglelabels", x=1, y=1, width=0, height=10),
    region("rectanglelabels", x=200, y=1, width=10, height=10),
    {**region("rectanglelabels", x=1, y=1, width=9, height=9), "original_width": 0},
    {**region("rectanglelabels", x=1, y=1, width=9, height=9), "original_width": "200"},
    {**region("rectanglelabels", x=1, y=1, width=9, height=9), "original_width": 10**400},
    {**region("rectanglelabels", x=1, y=1, width=9, height=9), "value": None},
    region("polygonlabels", points=[[1, 1], [2, 2]]),
    region("polygonlabels", points=[[1, 1], [2], [3, 3]]),
    region("polygonlabels", points=[[1, 1], [2, 10**400], [3, 3]]),
    region("polygonlabels", points={"a": 1}),
    region("polygonlabels"),
    region("brushlabels", rle=[1, 2, 3]),
    region("brushlabels", rle=list((4 * WIDTH * HEIGHT).to_bytes(4, "big")) + [255] * 30),
    region("brushlabels", imageDataURL="data:,"),
    region("brushlabels", imageDataURL=url(b"no picture")),
    region("brushlabels", imageDataURL=url(PNG.getvalue()[:40])),
    region("brushlabels", imageDataURL=url(bytes(HUGE_HEADER))),
    {**region("brushlabels", imageDataURL=url(PNG.getvalue())), "original_width": 10**6, "original_height": 10**6},
    region("ellipselabels", x=50, y=50, radiusX=None, radiusY=1),
    region("ellipselabels", x=50, y=50, radiusX=10**400, radiusY=1),
    region("ellipselabels", x=50, y=50, radiusX=math.inf, radiusY=1),
    region("keypointlabels", x=50, y=50, width=1),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_a_broken_region_takes_no_other_with_it(number: int) -> None:
    broken = BROKEN[number]
    if isinstance(broken, dict) and broken:
        broken = {**broken, "id": "broken"}
    good = region("rectanglelabels", x=10, y=20, width=30, height=40)
    assert [one.region for one in labelled_boxes([broken, good], INTERFACE)] == ["r"]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("Car"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
KINDS = ["rectanglelabels", "polygonlabels", "brushlabels", "bitmasklabels", "ellipselabels", "rectangle", "labels"]
KEYS = ["x", "y", "width", "height", "rotation", "points", "rle", "imageDataURL", "radiusX", "radiusY", "labels"]
likely = st.fixed_dictionaries(
    {
        "id": anything,
        "type": st.sampled_from(KINDS) | anything,
        "value": st.dictionaries(st.sampled_from(KEYS), anything | st.just([[0, 0], [9, 0], [9, 9]]))
        .map(lambda value: value | {kind: ["Car"] for kind in KINDS}) | anything,
        "original_width": st.just(WIDTH) | anything,
        "original_height": st.just(HEIGHT) | anything,
    },
    optional={"item_index": anything, "to_name": anything},
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(likely | anything, max_size=4))
@example([{"id": [], "type": {}, "value": {"{}": ["Car"]}}])
def test_no_json_is_too_strange(result: list[Any]) -> None:
    for found in labelled_boxes(result, INTERFACE):
        x0, y0, x1, y1 = found.xyxy
        width, height = found.size_wh
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        assert found.label in INTERFACE.labels


def test_addresses() -> None:
    data = {"image": "/a.png", "pages": ["/p0.png", "/p1.png"]}
    expected = {("image", 0): "/a.png", ("pages", 0): "/p0.png", ("pages", 1): "/p1.png"}
    assert addresses_of(INTERFACE, data) == expected
    assert addresses_of(INTERFACE, {"image": 7}) == {}


def test_the_helper_makes_regions_that_are_read() -> None:
    assert only(rectangle("r", "Van")).label == "Van"
