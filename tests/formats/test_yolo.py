"""YOLO folders: names, layouts, boxes, polygons, oriented boxes; a bad line is told with its file and number."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tator_sdk.formats.dataset import DatasetError, LabelledPicture, Outline, enclosing_xyxy
from tator_sdk.formats.names import find_names
from tator_sdk.formats.yolo import YoloReader
from tator_sdk.geometry import RotatedBox
from tests.formats.material import LINE, NAMES, SIZE_WH, folder, picture, same_shape

WIDTH, HEIGHT = SIZE_WH


def only(root: Path, kind: str = "auto") -> LabelledPicture:
    (found,) = YoloReader(root, kind=kind).pictures()
    return found


def lines(root: Path, text: str | bytes, kind: str = "auto") -> LabelledPicture:
    return only(folder(root, {"a.jpg": b"", "a.txt": text, "classes.txt": NAMES}), kind)


@pytest.mark.parametrize("name", ["labelmap.txt", "classes.txt", "labels.txt"])
@pytest.mark.parametrize("place", ["", "..", "../..", "../labels"])
def test_names_one_a_line(tmp_path: Path, name: str, place: str) -> None:
    images = tmp_path / "set" / "images" / "train"
    images.mkdir(parents=True)
    (images / place).mkdir(exist_ok=True)
    (images / place / name).write_text("\ufeffCar\r\n Straße \n\n日本\n\n")
    assert find_names(images) == ["Car", "Straße", "日本"]


@pytest.mark.parametrize(
    "text",
    [
        "names: [Car, Van, 7]",
        "names:\n  - Car\n  - Van\n  - 7",
        "names: {0: Car, 1: Van, 2: 7}",
        "names: {2: 7, 0: Car, 1: Van}",
        "names: {'0': Car, '1': Van, '2': 7}",
        "path: ../x\ntrain: images\nnc: 3\nnames:\n  0: Car\n  1: Van\n  2: 7\n",
    ],
)
def test_names_of_a_data_yaml(tmp_path: Path, text: str) -> None:
    assert find_names(folder(tmp_path, {"data.yaml": text})) == ["Car", "Van", "7"]
    assert find_names(tmp_path / "nowhere", tmp_path / "data.yaml") == ["Car", "Van", "7"]


def test_more_than_ten_quoted_indices_keep_their_order(tmp_path: Path) -> None:
    text = "names:\n" + "".join(f"  '{index}': class {index}\n" for index in range(12))
    assert find_names(folder(tmp_path, {"data.yaml": text})) == [f"class {index}" for index in range(12)]


@pytest.mark.parametrize(
    "text",
    [
        "", "nc: 3", "names:", "names: Car", "names: 7", "names: {0: Car, 2: Bus}", "names: {a: Car}", "[1, 2]", "{",
        "a: &a [x, x]\nnames: [*a, *a]", "names: !!python/object/apply:os.getcwd []",
    ],
)  # fmt: skip
def test_a_data_yaml_without_usable_names(tmp_path: Path, text: str) -> None:
    with pytest.raises(DatasetError, match=r"data\.yaml"):
        find_names(folder(tmp_path, {"data.yaml": text}))


def test_no_names(tmp_path: Path) -> None:
    images = tmp_path / "a" / "b" / "c"
    images.mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"labelmap\.txt"):
        find_names(images)
    with pytest.raises(DatasetError, match=r"mine\.txt"):
        find_names(images, images / "mine.txt")
    for content in (b"\n \n", "Straße".encode("latin-1")):
        (images / "classes.txt").write_bytes(content)
        with pytest.raises(DatasetError, match=r"classes\.txt"):
            find_names(images)


A, B, C = "images/train/a.jpg", "images/val/b.jpg", "images/c.jpg"
LAYOUTS = {
    "split below": {A: b"", "labels/train/a.txt": LINE, B: b"", "labels/val/b.txt": LINE},
    "split above": {
        "train/images/a.jpg": b"", "train/labels/a.txt": LINE, "valid/images/b.jpg": b"", "valid/labels/b.txt": LINE,
    },
    "split beside": {"train/a.jpg": b"", "train/a.txt": LINE, "val/b.jpg": b"", "val/b.txt": LINE},
    "yaml folders": {
        "x/a.jpg": b"", "x/a.txt": LINE, "y/b.jpg": b"", "y/b.txt": LINE,
        "data.yaml": "train: x\nval: [y, nowhere]\nnames: [Car, Van, Bus]",
    },
    "yaml path": {
        "in/x/a.jpg": b"", "in/x/a.txt": LINE, "in/y/b.jpg": b"", "in/y/b.txt": LINE,
        "data.yaml": "path: in\ntrain: x\nval: y\nnames: [Car, Van, Bus]",
    },
    "yaml of roboflow": {
        "train/images/a.jpg": b"", "train/labels/a.txt": LINE, "valid/images/b.jpg": b"", "valid/labels/b.txt": LINE,
        "data.yaml": "train: ../train/images\nval: ../valid/images\nnames: [Car, Van, Bus]",
    },
    "yaml lists": {
        "images/a.jpg": b"", "labels/a.txt": LINE, "images/b.jpg": b"", "labels/b.txt": LINE,
        "train.txt": "./images/a.jpg\n", "val.txt": "images/b.jpg\nimages/a.jpg\n",
        "data.yaml": "train: train.txt\nval: val.txt\nnames: [Car, Van, Bus]",
    },
    "yaml nested": {
        "images/a.jpg": b"", "labels/a.txt": LINE, B: b"", "labels/val/b.txt": LINE,
        "data.yaml": "train: images\nval: images/val\ntest: images/val\nnames: [Car, Van, Bus]",
    },
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_in_all_their_usual_shapes(tmp_path: Path, layout: str) -> None:
    reader = YoloReader(folder(tmp_path, {"classes.txt": NAMES, **LAYOUTS[layout]}))
    found = list(reader.pictures())
    assert [(one.path.name, one.split, len(one.shapes)) for one in found] == [
        ("a.jpg", "train", 1),
        ("b.jpg", "val", 1),
    ]
    assert [one.name for one in found] == ["train/a.jpg", "val/b.jpg"] or layout == "split above"
    assert len(reader) == 2 and not list(reader.strays())
    assert [one.name for one in reader.pictures()] == [one.name for one in found]
    assert any("nowhere" in note for note in reader.notes) == (layout == "yaml folders")


def test_labels_in_a_folder_that_is_named(tmp_path: Path) -> None:
    root = folder(tmp_path, {"p/x/a.jpg": b"", "q/x/a.txt": LINE, "p/notes.md": "", "classes.txt": NAMES})
    (found,) = YoloReader(root / "p", labels=root / "q").pictures()
    assert found.name == "x/a.jpg" and len(found.shapes) == 1 and found.size_wh == SIZE_WH


def test_the_folder_of_the_pictures_is_enough(tmp_path: Path) -> None:
    root = folder(tmp_path, {A: b"", "labels/train/a.txt": LINE, B: b"", "classes.txt": NAMES})
    assert [len(one.shapes) for one in YoloReader(root / "images").pictures()] == [1, 0]
    assert [one.name for one in YoloReader(root / "images" / "train").pictures()] == ["a.jpg"]


def test_one_name_in_two_splits_is_two_pictures(tmp_path: Path) -> None:
    files = {f"{split}/images/a.jpg": b"" for split in ("train", "val")} | {
        "train/labels/a.txt": LINE,
        "classes.txt": NAMES,
    }
    found = list(YoloReader(folder(tmp_path, files)).pictures())
    assert [(one.name, len(one.shapes)) for one in found] == [("train/a.jpg", 1), ("val/a.jpg", 0)]
    folder(tmp_path, {"images/train/a.jpg": b""})
    names = [one.name for one in YoloReader(tmp_path).pictures()]
    assert len(names) == 3 == len(set(names))


def test_two_pictures_of_one_stem_are_told(tmp_path: Path) -> None:
    root = folder(tmp_path, {"a.jpg": b"", "a.png": b"", "a.txt": LINE, "classes.txt": NAMES})
    first, second = YoloReader(root).pictures()
    assert len(first.shapes) == len(second.shapes) == 1 and not first.bad
    assert "a.jpg" in str(second.bad[0]) and "both" in str(second.bad[0])


def test_labels_without_a_picture_and_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    files = {
        "images/a.jpg": b"", "images/b.jpg": b"no picture", "images/c.jpg": b"", "labels/a.txt": LINE,
        "labels/b.txt": LINE,
        "labels/d.txt": f"{LINE}\n\n{LINE}", "labels/empty.txt": "\n", "labels/test/e.txt": LINE, "classes.txt": NAMES,
        "train_batch0.jpg": b"",
    }  # fmt: skip
    reader = YoloReader(folder(tmp_path, files))
    assert [(one.name, len(one.shapes)) for one in reader.pictures()] == [("a.jpg", 1), ("c.jpg", 0)]
    said = [str(stray).removeprefix(str(tmp_path)) for stray in reader.strays()]
    assert said == [
        "/images/b.jpg: the file is not a picture that can be read; its 1 line is left out",
        "/labels/d.txt: there is no picture of this name; its 2 lines are left out",
        "/labels/test/e.txt: there is no picture of this name; its 1 line is left out",
    ]
    assert any("left out: 1" in note for note in reader.notes)


def test_a_picture_of_a_list_that_is_gone(tmp_path: Path) -> None:
    files = {
        "images/a.jpg": b"",
        "labels/b.txt": LINE,
        "t.txt": "images/a.jpg\nimages/b.jpg",
        "data.yaml": "train: t.txt\nnames: [x]",
    }
    reader = YoloReader(folder(tmp_path, files))
    assert [one.path.name for one in reader.pictures()] == ["a.jpg"]
    assert ["is not there; its 1 line" in str(stray) for stray in reader.strays()] == [True]


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    root = folder(tmp_path, {"classes.txt": NAMES, "p/a.jpg": b""})
    (root / "empty").mkdir()
    for images, labels in ((root / "no", None), (root / "empty", None), (root / "p", root / "no")):
        with pytest.raises(DatasetError, match=r"There (is|are) no"):
            YoloReader(images, labels=labels)


def test_exif_rotation_decides_what_shares_are_of(tmp_path: Path) -> None:
    for turned, size_wh in ((1, (200, 100)), (3, (200, 100)), (6, (100, 200)), (8, (100, 200))):
        root = folder(
            tmp_path / str(turned), {"a.jpg": picture(kind="JPEG", turned=turned), "a.txt": LINE, "classes.txt": NAMES}
        )
        found = only(root)
        assert found.size_wh == size_wh
        wide, high = size_wh
        assert found.shapes[0].shape == pytest.approx((0.4 * wide, 0.3 * high, 0.6 * wide, 0.7 * high))


def test_bad_lines_are_told_and_harm_no_other(tmp_path: Path) -> None:
    bad = {
        "0 0.5 0.5 0.2": "3 numbers after the class",
        "0 0.5 0.5 0.2 0.4 0.9": "5 numbers after the class",
        "car 0.5 0.5 0.2 0.4": "not a row of numbers",
        "3 0.5 0.5 0.2 0.4": "class 3 is not among",
        "-1 0.5 0.5 0.2 0.4": "class -1 is not among",
        "0.5 0.5 0.5 0.2 0.4": "class 0.5 is not among",
        "0 nan 0.5 0.2 0.4": "not finite",
        "0 inf 0.5 0.2 0.4": "not finite",
        "1e999 0.5 0.5 0.2 0.4": "not finite",
        "0 320 240 50 60": "pixels",
        "0 0.5 0.5 0 0.4": "no area",
        "0 0.5 0.5 -0.2 0.4": "no area",
        "0 0.1 0.1 0.2 0.2 0.3": "5 numbers after the class",
        "0 0.1 0.1 0.1 0.2 0.1 0.3": "no area",
        "0": "0 numbers after the class",
    }
    found = lines(tmp_path, "\n".join([LINE, "", *bad, "2 0.5 0.5 0.1 0.1"]))
    assert [one.line for one in found.shapes] == [1, len(bad) + 3] and [one.label for one in found.shapes] == [
        "Car",
        "Bus",
    ]
    assert [one.number for one in found.bad] == list(range(3, len(bad) + 3))
    assert str(found.bad[0]).startswith(f"{tmp_path / 'a.txt'}:3: ")
    said = [one.reason for one in found.bad]
    assert [words for words, reason in zip(bad.values(), said, strict=True) if words not in reason] == [], said


def test_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    found = lines(tmp_path / "bom", f"\ufeff{LINE}\r\n{LINE}\r\n")
    assert len(found.shapes) == 2 and not found.bad
    broken = lines(tmp_path / "binary", b"\xff\xfe\x00binary\n" + LINE.encode())
    assert len(broken.shapes) == 1 and ["UTF-8" in one.reason for one in broken.bad] == [True]
    utf16 = lines(tmp_path / "utf16", f"{LINE}\n{LINE}\n".encode("utf-16"))
    assert not utf16.shapes and utf16.bad and all("UTF-8" in one.reason for one in utf16.bad)


DIAMOND = "2 0.5 0.1 0.9 0.5 0.5 0.9 0.1 0.5"
SQUARE = "1 0.2 0.2 0.4 0.2 0.4 0.8 0.2 0.8"


def test_what_four_points_mean_is_said_and_never_guessed(tmp_path: Path) -> None:
    both = f"{SQUARE}\n{DIAMOND}"
    as_told = lines(tmp_path / "auto", both).shapes
    assert all(isinstance(one.shape, Outline) for one in as_told)
    reader = YoloReader(tmp_path / "auto")
    assert "tator import obb" in reader.notes[0] and reader.kind == "auto"
    assert not YoloReader(
        folder(tmp_path / "mixed", {"a.jpg": b"", "a.txt": f"{SQUARE}\n{LINE}", "classes.txt": NAMES})
    ).notes

    boxes = lines(tmp_path / "obb", both, "obb").shapes
    assert boxes[0].shape == RotatedBox(pytest.approx(40), pytest.approx(20), pytest.approx(40), pytest.approx(60), 0)
    assert isinstance(boxes[1].shape, RotatedBox)  # no rectangle in pixels: the smallest around it
    assert enclosing_xyxy(boxes[1].shape)[0] <= 20 + 0.5
    assert lines(tmp_path / "three", "0 0.1 0.1 0.5 0.1 0.5 0.5", "obb").bad
    (outside,) = lines(tmp_path / "outside", "0 1.2 0.2 1.4 0.2 1.4 0.4 1.2 0.4", "obb").bad
    assert "outside of the picture" in outside.reason

    upright = [one.shape for one in lines(tmp_path / "detect", both, "detect").shapes]
    assert upright == [pytest.approx((40, 20, 80, 80)), pytest.approx((20, 10, 180, 90))]


@pytest.mark.parametrize("task", ["obb", "segment", "detect"])
def test_the_metadata_says_the_kind(tmp_path: Path, task: str) -> None:
    root = folder(tmp_path, {"a.jpg": b"", "a.txt": SQUARE, "data.yaml": f"task: {task}\nnames: [Car, Van]"})
    kinds = {"obb": RotatedBox, "segment": Outline, "detect": tuple}
    assert YoloReader(root).kind == task and isinstance(only(root).shapes[0].shape, kinds[task])
    assert isinstance(only(root, "segment").shapes[0].shape, Outline)


def test_a_label_map_and_a_data_yaml_that_differ_are_told(tmp_path: Path) -> None:
    root = folder(tmp_path, {"a.jpg": b"", "a.txt": LINE, "labelmap.txt": NAMES, "data.yaml": "names: [Other]"})
    reader = YoloReader(root)
    assert reader.classes == ("Car", "Van", "Bus") and "names other classes" in reader.notes[0]
    (root / "data.yaml").write_text("{")
    assert "no readable `names`" in YoloReader(root).notes[0]


def test_a_box_a_little_outside_is_clipped(tmp_path: Path) -> None:
    assert lines(tmp_path, "0 0.1 0.5 0.21 1.0").shapes[0].shape == pytest.approx((0, 0, 0.205 * WIDTH, HEIGHT))


sides = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted).filter(lambda pair: pair[1] - pair[0] > 1e-3)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), sides, sides), max_size=6))
def test_what_is_written_is_read(tmp_path_factory: Any, boxes: list[Any]) -> None:
    text = "".join(
        f"{index} {(x0 + x1) / 2:.9f} {(y0 + y1) / 2:.9f} {x1 - x0:.9f} {y1 - y0:.9f}\n"
        for index, (x0, x1), (y0, y1) in boxes
    )
    found = lines(tmp_path_factory.mktemp("yolo"), text)
    assert not found.bad and len(found.shapes) == len(boxes)
    for one, (index, (x0, x1), (y0, y1)) in zip(found.shapes, boxes, strict=True):
        assert one.label == NAMES.split()[index]
        assert one.shape == pytest.approx((x0 * WIDTH, y0 * HEIGHT, x1 * WIDTH, y1 * HEIGHT), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.binary(max_size=200) | st.text("0123456789.-e \n", max_size=200).map(str.encode),
    st.sampled_from(["auto", "obb", "segment", "detect"]),
)
def test_no_label_file_is_too_strange(tmp_path_factory: Any, data: bytes, kind: str) -> None:
    for one in lines(tmp_path_factory.mktemp("yolo"), data, kind).shapes:
        box = enclosing_xyxy(one.shape)
        assert one.label in NAMES.split() and all(math.isfinite(edge) for edge in box)
        assert box[0] < box[2] and box[1] < box[3]


def test_a_polygon_that_closes_itself_has_no_corner_twice(tmp_path: Path) -> None:
    (one,) = lines(tmp_path, "0 0.1 0.2 0.5 0.2 0.3 0.6 0.1 0.2").shapes
    import numpy as np

    triangle = Outline((np.array([[20, 20], [100, 20], [60, 60]], np.float64),))
    assert same_shape(one.shape, triangle, 1e-6)
