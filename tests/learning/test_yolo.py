"""YOLO folders: names, boxes and polygons; a bad line is told with its file and number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tator_sdk.formats.yolo import YoloError, YoloPicture, find_names, read_folder

LINE = "0 0.5 0.5 0.2 0.4"


def folder(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def only(root: Path, classes: int = 3, labels: Path | None = None) -> YoloPicture:
    (found,) = read_folder(root, labels, classes)
    return found


@pytest.mark.parametrize("name", ["labelmap.txt", "classes.txt", "labels.txt"])
@pytest.mark.parametrize("place", ["", "..", "../.."])
def test_names_one_a_line(tmp_path: Path, name: str, place: str) -> None:
    images = tmp_path / "set" / "images" / "train"
    images.mkdir(parents=True)
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
    ["", "nc: 3", "names:", "names: Car", "names: 7", "names: {0: Car, 2: Bus}", "names: {a: Car}", "[1, 2]", "{"],
)
def test_a_data_yaml_without_usable_names(tmp_path: Path, text: str) -> None:
    with pytest.raises(YoloError, match=r"data\.yaml"):
        find_names(folder(tmp_path, {"data.yaml": text}))


def test_no_names(tmp_path: Path) -> None:
    images = tmp_path / "a" / "b" / "c"
    images.mkdir(parents=True)
    with pytest.raises(YoloError, match=r"labelmap\.txt"):
        find_names(images)
    with pytest.raises(YoloError, match=r"mine\.txt"):
        find_names(images, images / "mine.txt")
    for content in (b"\n \n", "Straße".encode("latin-1")):
        (images / "classes.txt").write_bytes(content)
        with pytest.raises(YoloError, match=r"classes\.txt"):
            find_names(images)


def test_where_label_files_are_looked_for(tmp_path: Path) -> None:
    beside = folder(tmp_path / "one", {"a.jpg": b"", "a.txt": LINE, "sub/b.v2.PNG": b"", "sub/b.v2.txt": LINE})
    assert [len(one.lines) for one in read_folder(beside, None, 1)] == [1, 1]
    root = folder(tmp_path / "two", {"images/train/a.jpg": b"", "labels/train/a.txt": LINE, "images/val/b.jpg": b""})
    assert [len(one.lines) for one in read_folder(root / "images" / "train", None, 1)] == [1]
    assert [(one.path.name, len(one.lines)) for one in read_folder(root / "images", None, 1)] == [
        ("a.jpg", 1), ("b.jpg", 0),
    ]  # fmt: skip
    apart = folder(tmp_path / "three", {"p/x/a.jpg": b"", "q/x/a.txt": LINE, "p/notes.md": b""})
    assert len(only(apart / "p", labels=apart / "q").lines) == 1


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for images, labels in ((tmp_path / "no", None), (tmp_path / "empty", None), (tmp_path, tmp_path / "no")):
        with pytest.raises(YoloError):
            list(read_folder(images, labels, 1))


def test_bad_lines_are_told_and_harm_no_other(tmp_path: Path) -> None:
    bad = [
        "0 0.5 0.5 0.2",
        "0 0.5 0.5 0.2 0.4 0.9",
        "car 0.5 0.5 0.2 0.4",
        "3 0.5 0.5 0.2 0.4",
        "-1 0.5 0.5 0.2 0.4",
        "0.5 0.5 0.5 0.2 0.4",
        "0 nan 0.5 0.2 0.4",
        "0 inf 0.5 0.2 0.4",
        "1e999 0.5 0.5 0.2 0.4",
        "0 320 240 50 60",
        "0 0.5 0.5 0 0.4",
        "0 0.5 0.5 -0.2 0.4",
        "0 0.1 0.1 0.2 0.2 0.3",
        "0",
    ]
    text = "\n".join([LINE, "", *bad, "2 0.5 0.5 0.1 0.1"])
    found = only(folder(tmp_path, {"a.jpg": b"", "a.txt": text}))
    assert [line.number for line in found.lines] == [1, len(bad) + 3]
    assert [one.number for one in found.bad] == list(range(3, len(bad) + 3))
    assert str(found.bad[0]).startswith(f"{tmp_path / 'a.txt'}:3: ") and all(one.reason for one in found.bad)


def test_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    found = only(folder(tmp_path, {"a.jpg": b"", "a.txt": f"\ufeff{LINE}\r\n{LINE}\r\n"}))
    assert len(found.lines) == 2 and not found.bad
    broken = only(folder(tmp_path, {"a.jpg": b"", "a.txt": b"\xff\xfe\x00binary\n" + LINE.encode()}))
    assert len(broken.lines) == 1 and len(broken.bad) == 1


def test_polygons_and_oriented_boxes_give_the_box_around_them(tmp_path: Path) -> None:
    text = "1 0.1 0.2 0.5 0.1 0.3 0.6\n2 0.5 0.1 0.9 0.5 0.5 0.9 0.1 0.5"
    lines = only(folder(tmp_path, {"a.jpg": b"", "a.txt": text})).lines
    assert [line.box for line in lines] == [(0.1, 0.1, 0.5, 0.6), (0.1, 0.1, 0.9, 0.9)]


def test_a_box_a_little_outside_is_clipped(tmp_path: Path) -> None:
    found = only(folder(tmp_path, {"a.jpg": b"", "a.txt": "0 0.1 0.5 0.21 1.0"}))
    assert found.lines[0].box == pytest.approx((0, 0, 0.205, 1))


sides = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted).filter(lambda pair: pair[1] - pair[0] > 1e-3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), sides, sides), max_size=6))
def test_what_is_written_is_read(tmp_path_factory: Any, boxes: list[Any]) -> None:
    text = "".join(
        f"{index} {(x0 + x1) / 2:.9f} {(y0 + y1) / 2:.9f} {x1 - x0:.9f} {y1 - y0:.9f}\n"
        for index, (x0, x1), (y0, y1) in boxes
    )
    root = folder(tmp_path_factory.mktemp("yolo"), {"a.jpg": b"", "a.txt": text})
    found = only(root, classes=6)
    assert not found.bad and len(found.lines) == len(boxes)
    for line, (index, (x0, x1), (y0, y1)) in zip(found.lines, boxes, strict=True):
        assert line.index == index and line.box == pytest.approx((x0, y0, x1, y1), abs=1e-8)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_no_label_file_is_too_strange(tmp_path_factory: Any, data: bytes) -> None:
    found = only(folder(tmp_path_factory.mktemp("yolo"), {"a.jpg": b"", "a.txt": data}))
    for line in found.lines:
        assert 0 <= line.index < 3 and 0 <= line.box[0] < line.box[2] <= 1 and 0 <= line.box[1] < line.box[3] <= 1
