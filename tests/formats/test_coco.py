"""COCO files: boxes, parts, run lengths of both kinds, rotation; whatever is wrong is told and harms nothing else."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask

from tator_sdk.formats import open_dataset
from tator_sdk.formats.coco import CocoReader, shape_of
from tator_sdk.formats.dataset import DatasetError, LabelledPicture, Outline
from tator_sdk.formats.masks import exact_outline, mask_of_rle
from tator_sdk.formats.write_coco import geometry_of
from tator_sdk.geometry import RotatedBox
from tests.formats.material import SIZE_WH, corners, folder, picture, same_ring

WIDTH, HEIGHT = SIZE_WH
TRIANGLE = [20, 20, 100, 20, 60, 60]


def entry(number: int, image: int = 1, category: int = 5, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": [10, 20, 30, 40], **more}


def content(*annotations: dict[str, Any], **more: Any) -> str:
    image = {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}
    categories = [{"id": 5, "name": "Van"}, {"id": 2, "name": "Car"}]
    return json.dumps({"annotations": annotations, "images": [image], "categories": categories, **more})


def only(root: Path, *annotations: dict[str, Any]) -> LabelledPicture:
    reader = CocoReader([folder(root, {"a.png": b"", "set.json": content(*annotations)}) / "set.json"])
    (found,) = reader.pictures()
    assert reader.classes == ("Car", "Van") and len(reader) == 1 and not list(reader.strays())
    reader.close()
    return found


def test_a_box_and_polygons_of_several_parts(tmp_path: Path) -> None:
    parts = [TRIANGLE, [150, 50, 190, 50, 190, 90, 150, 90, 150, 50]]
    found = only(tmp_path, entry(1), entry(2, category=2, segmentation=parts), entry(3, segmentation=[]),
                 entry(4, segmentation=TRIANGLE))  # fmt: skip
    box, outline, empty, flat = (one.shape for one in found.shapes)
    assert box == empty == (10, 20, 40, 60) and [one.label for one in found.shapes] == ["Van", "Car", "Van", "Van"]
    assert isinstance(outline, Outline) and [len(part) for part in outline.parts] == [3, 4]
    assert same_ring(corners(flat), np.array(TRIANGLE).reshape(-1, 2), 0)
    assert [one.line for one in found.shapes] == [1, 2, 3, 4] and found.size_wh == SIZE_WH


def ring_mask() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:60, 20:90] = True
    mask[30:40, 40:50] = False
    mask[70:80, 100:120] = True
    return mask


@pytest.mark.parametrize("form", ["text", "numbers"])
def test_run_lengths_keep_holes_and_parts(tmp_path: Path, form: str) -> None:
    mask = ring_mask()
    if form == "text":
        written = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        written["counts"] = written["counts"].decode()
    else:
        flat = mask.T.ravel()
        changes = np.flatnonzero(np.diff(flat)) + 1
        written = {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *changes, flat.size]).tolist()}
    (one,) = only(tmp_path, entry(1, iscrowd=1, segmentation=written)).shapes
    assert isinstance(one.shape, Outline) and len(one.shape.parts) == 2 and len(one.shape.holes) == 1
    assert same_ring(one.shape.holes[0], np.array([[40, 30], [50, 30], [50, 40], [40, 40]]), 0)


def filled(outline: Outline, size_wh: tuple[int, int]) -> np.ndarray:
    """By the even-odd rule at the pixels' centres."""
    xs, ys = np.meshgrid(np.arange(size_wh[0]) + 0.5, np.arange(size_wh[1]) + 0.5)
    inside = np.zeros(xs.shape, int)
    for ring in (*outline.parts, *outline.holes):
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if y0 != y1:
                inside += ((y0 > ys) != (y1 > ys)) & (xs < x0 + (ys - y0) / (y1 - y0) * (x1 - x0))
    return inside % 2 == 1


@settings(max_examples=40, deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_any_mask_has_an_exact_outline_and_any_run_lengths_are_read(mask: np.ndarray) -> None:
    outline = exact_outline(mask)
    assert (outline is None) == (not mask.any())
    if outline is not None:
        assert np.array_equal(filled(outline, mask.shape[::-1]), mask)
    written = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    assert np.array_equal(mask_of_rle(written | {"counts": written["counts"].decode()}, mask.shape[::-1]), mask)


@settings(max_examples=40, deadline=None)
@given(arrays.arrays(bool, (7, 9)))
def test_any_mask_is_written_and_read_exactly(cells: np.ndarray) -> None:
    """Parts, holes and islands in holes, three pixels a cell."""
    mask = np.pad(cells.repeat(3, axis=0).repeat(3, axis=1), 2)
    size_wh = mask.shape[1], mask.shape[0]
    outline = exact_outline(mask)
    if outline is None:
        return
    written = geometry_of(outline, size_wh)
    assert written is not None and written["area"] == mask.sum()
    found = shape_of(written, size_wh)
    assert np.array_equal(filled(found, size_wh) if isinstance(found, Outline) else box_mask(found, mask.shape), mask)


def box_mask(shape: Any, size_hw: tuple[int, ...]) -> np.ndarray:
    x0, y0, x1, y1 = (int(edge) for edge in shape)
    mask = np.zeros(size_hw, bool)
    mask[y0:y1, x0:x1] = True
    return mask


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(st.text(max_size=20), st.lists(st.one_of(st.integers(), st.floats(), st.text(max_size=2)), max_size=6))
)
def test_no_run_lengths_are_too_strange(counts: Any) -> None:
    with contextlib.suppress(ValueError, OverflowError):
        assert mask_of_rle({"size": [4, 5], "counts": counts}, (5, 4)).shape == (4, 5)


def test_rotation_as_it_is_written_elsewhere(tmp_path: Path) -> None:
    turned = RotatedBox(60, 30, 40, 20, 30)
    written = turned.corners().ravel().tolist()
    label_studio = entry(2, bbox=[60, 30, 40, 20], rotation=30)
    cvat = entry(3, bbox=[60, 30, 40, 20], attributes={"rotation": 90, "occluded": False})
    found = only(tmp_path, entry(1, segmentation=[written], rotation=30), label_studio, cvat).shapes
    for one in found[:2]:
        assert isinstance(one.shape, RotatedBox) and np.allclose(one.shape.corners(), turned.corners(), atol=1e-6)
    assert found[2].shape.enclosing_xyxy() == pytest.approx((70, 20, 90, 60))  # type: ignore[union-attr]
    (plain,) = only(tmp_path, entry(1, segmentation=[written])).shapes
    assert isinstance(plain.shape, Outline)  # four points alone are a polygon


BAD = {
    "no category": (entry(2, category=9), "category 9 is not in the list"),
    "no area": (entry(2, bbox=[10, 20, 0, 40]), "no area"),
    "negative": (entry(2, bbox=[10, 20, -5, 40]), "no area"),
    "outside": (entry(2, bbox=[500, 20, 30, 40]), "outside of the picture"),
    "short": (entry(2, bbox=[10, 20, 30]), "neither a segmentation nor a bbox"),
    "words": (entry(2, bbox=["a", 1, 2, 3]), "no finite number"),
    "nothing": ({"id": 2, "image_id": 1, "category_id": 5}, "neither a segmentation nor a bbox"),
    "odd": (entry(2, segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "an even count"),
    "two points": (entry(2, segmentation=[[1, 2, 3, 4]]), "six numbers or more"),
    "flat": (entry(2, segmentation=[[1, 2, 3, 2, 5, 2]]), "no area"),
    "far": (entry(2, segmentation=[[1, 2, 3, 2, 900, 900]]), "reaches out"),
    "size": (entry(2, segmentation={"size": [3, 3], "counts": [9]}), "of size [3, 3]"),
    "sum": (entry(2, segmentation={"size": [HEIGHT, WIDTH], "counts": [9]}), "do not fill"),
    "text": (entry(2, segmentation={"size": [HEIGHT, WIDTH], "counts": "zzz"}), "cannot be read"),
    "breaks off": (entry(2, segmentation={"size": [HEIGHT, WIDTH], "counts": "PPP"}), "break off"),
    "empty": (entry(2, segmentation={"size": [HEIGHT, WIDTH], "counts": [WIDTH * HEIGHT]}), "is empty"),
    "turned, outside": (entry(2, bbox=[900, 20, 30, 40], rotation=30), "outside of the picture"),
    "turned, beside a corner": (entry(2, bbox=[-14, -2, 10, 10], rotation=315), "outside of the picture"),
    "turned about its middle, outside": (
        entry(2, bbox=[900, 20, 30, 40], attributes={"rotation": 30}),
        "outside of the picture",
    ),
    "turned corners, outside": (
        entry(2, segmentation=[[300, 20, 330, 20, 330, 60, 300, 60]], rotation=0),
        "outside of the picture",
    ),
}


@pytest.mark.parametrize(("given", "reason"), BAD.values(), ids=BAD)
def test_a_bad_annotation_is_told_and_harms_no_other(tmp_path: Path, given: dict[str, Any], reason: str) -> None:
    found = only(tmp_path, entry(1), given, entry(3))
    assert [one.line for one in found.shapes] == [1, 3]
    (bad,) = found.bad
    assert bad.number == 2 and bad.file.name == "set.json" and reason in bad.reason


def test_entries_that_belong_nowhere(tmp_path: Path) -> None:
    images = [
        {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
        {"id": 2, "file_name": "gone.png", "width": 10, "height": 10},
        {"id": 3, "file_name": "../../etc/passwd.png", "width": 10, "height": 10},
        {"id": 4, "width": 10, "height": 10},
        {"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
        {"id": 1, "file_name": "b.png", "width": WIDTH, "height": HEIGHT},
        {"id": 8, "file_name": "sub\\c.png", "width": 5, "height": 5},
        {"id": 9, "file_name": "d.png"},
    ]
    annotations = [
        entry(1),
        entry(2, image=2),
        entry(3, image=99),
        entry(4, image=7),
        entry(5, image=8),
        entry(6, image=9),
    ]
    text = json.dumps(
        {"images": images, "annotations": annotations, "categories": [{"id": 5, "name": "Van"}, {"id": 6}]}
    )
    files = {"a.png": b"", "b.png": b"", "sub/c.png": b"", "d.png": b"", "set.json": text}
    reader = CocoReader([folder(tmp_path, files) / "set.json"])
    found = {one.name: one for one in reader.pictures()}
    assert {name: [shape.line for shape in one.shapes] for name, one in found.items()} == {
        "a.png": [1, 4], "b.png": [], "sub/c.png": [], "d.png": [6],
    }  # fmt: skip
    assert "said to be 5 x 5, but is seen as 200 x 100; its 1 annotations" in found["sub/c.png"].bad[0].reason
    said = " ".join(str(stray) for stray in reader.strays())
    for words in ("gone.png is not there; its annotations are left out: 1", "passwd.png is not there", "image_id 99",
                  "no id or no file_name", "a.png stands in the list twice", "image id 1 is that of two",
                  "category has no id"):  # fmt: skip
        assert words in said, words
    absent = CocoReader([tmp_path / "set.json"], absent=True)
    gone = next(one for one in absent.pictures() if one.name == "gone.png")
    assert gone.size_wh == (10, 10) and not gone.path.exists()


def test_a_picture_that_was_labelled_lying_on_its_side_is_told(tmp_path: Path) -> None:
    root = folder(tmp_path, {"a.png": picture(turned=6), "set.json": content(entry(1))})
    (found,) = CocoReader([root / "set.json"]).pictures()
    assert not found.shapes and "EXIF rotation" in found.bad[0].reason and found.size_wh == (HEIGHT, WIDTH)


@pytest.mark.parametrize("text", ["", "{", '{"images": [{"id": 1}', "[1]", '{"images": []}', '{"x": NaN}', "\x00"])
def test_files_that_are_no_coco_files(tmp_path: Path, text: str) -> None:
    with pytest.raises(DatasetError, match=r"set\.json"):
        CocoReader([folder(tmp_path, {"set.json": text}) / "set.json"])


def official(split: str) -> str:
    return content(entry(1)).replace("a.png", f"{split}.png")


@pytest.mark.parametrize(
    "files",
    [
        {"annotations/instances_train2017.json": official("t"), "annotations/instances_val2017.json": official("v"),
         "annotations/captions_val2017.json": official("w"), "train2017/t.png": b"", "val2017/v.png": b""},
        {"train/_annotations.coco.json": official("t"), "valid/_annotations.coco.json": official("v"),
         "train/t.png": b"", "valid/v.png": b"", "README.txt": "of a tool"},
        {"annotations/instances_train.json": official("t"), "annotations/instances_val.json": official("v"),
         "images/train/t.png": b"", "images/val/v.png": b""},
        {"train.json": official("t"), "val.json": official("v"), "images/t.png": b"", "images/v.png": b""},
    ],
    ids=["official", "roboflow", "tator", "flat"],
)  # fmt: skip
def test_splits_and_pictures_are_found(tmp_path: Path, files: dict[str, str | bytes]) -> None:
    reader = open_dataset(folder(tmp_path, files))
    found = list(reader.pictures())
    assert [(one.path.name, one.split, len(one.shapes)) for one in found] == [
        ("t.png", "train", 1),
        ("v.png", "val", 1),
    ]
    assert len({one.name for one in found}) == 2 and not list(reader.strays()) and reader.kind == "coco"


def test_real_photographs(shared_fixtures: Path) -> None:
    reader = open_dataset(shared_fixtures / "photos", "coco")
    found = list(reader.pictures())
    assert len(found) == 60 == len(reader) and sum(len(one.shapes) for one in found) == 417
    assert not list(reader.strays()) and not any(one.bad for one in found)
    for one in found:
        for shape in one.shapes:
            assert all(math.isfinite(value) for value in corners(shape.shape).ravel())
