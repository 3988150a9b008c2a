"""What is written is read again with the same geometry, by Tator and by others; nothing that was there is lost."""

from __future__ import annotations

import json
import math
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tator_sdk.formats import open_dataset
from tator_sdk.formats.dataset import DatasetError, LabelledPicture, LabelledShape, Outline, Shape, enclosing_xyxy
from tator_sdk.formats.rings import join_rings, split_ring
from tator_sdk.formats.write_coco import CocoWriter
from tator_sdk.formats.write_yolo import YoloWriter
from tator_sdk.formats.writing import MARKER, DatasetWriter, written_by_tator
from tator_sdk.geometry import RotatedBox, signed_area
from tests.formats.material import by_name, corners, folder, picture, same_shape

SIZE_WH = (400, 300)
CLASSES = ["Car", "Straße", "日本 7"]


def square(x: float, y: float, side: float) -> np.ndarray:
    return np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]], np.float64)


BOX = (10.25, 20.5, 110.125, 99.0)
TURNED = RotatedBox(200, 60, 90, 40, 33)
TRIANGLE = Outline((np.array([[20, 20], [200, 30], [60, 260]], np.float64),))
PARTS = Outline((square(20, 20, 60), square(150, 40, 80)))
HOLES = Outline(
    (square(20, 20, 100), square(200, 20, 150)), (square(40, 40, 30), square(220, 40, 30), square(290, 90, 40))
)


def write(writer: DatasetWriter, root: Path, *shapes: Shape, splits: tuple[str, ...] = ("train",)) -> Path:
    """The shapes, each of the next class, on a picture of each split."""
    path = folder(root, {"a.jpg": picture(SIZE_WH, "JPEG")}) / "a.jpg"
    labelled = tuple(LabelledShape(CLASSES[number % 3], shape) for number, shape in enumerate(shapes))
    with writer:
        for split in splits:
            writer.add(LabelledPicture(path, f"{split}/a.jpg", SIZE_WH, labelled, split))
    return writer.written.path


def read_back(path: Path, kind: str | None = None) -> list[LabelledPicture]:
    reader = open_dataset(path, kind)
    found = list(reader.pictures())
    assert reader.classes == tuple(CLASSES) and not list(reader.strays()) and not reader.notes
    assert not any(one.bad for one in found)
    reader.close()
    return found


side = st.floats(2, 60)


@st.composite
def boxes(draw: Any) -> Shape:
    x, y = draw(st.floats(0, 330)), draw(st.floats(0, 230))
    return x, y, x + draw(side), y + draw(side)


@st.composite
def rotated(draw: Any) -> Shape:
    return RotatedBox(
        draw(st.floats(130, 260)), draw(st.floats(130, 170)), draw(side), draw(side), draw(st.floats(-180, 180))
    )


@st.composite
def outlines(draw: Any) -> Shape:
    """One to four parts, each in a cell of its own, with up to two holes that lie in it."""
    parts, holes = [], []
    for cell in range(draw(st.integers(1, 4))):
        x, y = 100 * cell + 50, draw(st.floats(60, 240))
        count = draw(st.integers(4, 9))
        radii = np.array(draw(st.lists(st.floats(38, 49), min_size=count, max_size=count)))
        angles = 2 * math.pi * np.arange(count) / count
        ring = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], 1)
        parts.append(ring[::-1] if draw(st.booleans()) else ring)
        for place in range(draw(st.integers(0, 2))):
            holes.append(square(x - 14 + 16 * place, y - 6, draw(st.floats(3, 12))))
    return Outline(tuple(parts), tuple(holes))


@settings(max_examples=15, deadline=None)
@given(st.lists(boxes(), max_size=4))
def test_boxes_come_back(tmp_path_factory: Any, shapes: list[Shape]) -> None:
    root = tmp_path_factory.mktemp("boxes")
    for writer in (YoloWriter(root / "yolo", CLASSES), CocoWriter(root / "coco", CLASSES)):
        (found,) = read_back(write(writer, root, *shapes))
        assert [one.label for one in found.shapes] == [CLASSES[number % 3] for number in range(len(shapes))]
        assert all(same_shape(one.shape, shape, 0.01) for one, shape in zip(found.shapes, shapes, strict=True))


@settings(max_examples=15, deadline=None)
@given(st.lists(rotated(), max_size=4))
def test_rotated_boxes_come_back(tmp_path_factory: Any, shapes: list[RotatedBox]) -> None:
    root = tmp_path_factory.mktemp("rotated")
    for writer in (YoloWriter(root / "yolo", CLASSES, "obb"), CocoWriter(root / "coco", CLASSES)):
        (found,) = read_back(write(writer, root, *shapes))
        for one, shape in zip(found.shapes, shapes, strict=True):
            assert isinstance(one.shape, RotatedBox)
            assert np.abs(one.shape.corners() - shape.corners()).max() < 0.05  # the first corner is still the first
            assert abs((one.shape.rotation - shape.rotation + 180) % 360 - 180) < 2


@settings(max_examples=20, deadline=None)
@given(outlines())
def test_parts_and_holes_come_back(tmp_path_factory: Any, shape: Outline) -> None:
    root = tmp_path_factory.mktemp("outlines")
    (found,) = read_back(write(YoloWriter(root / "yolo", CLASSES, "segment"), root, shape))
    assert same_shape(found.shapes[0].shape, shape, 0.01)
    (found,) = read_back(write(CocoWriter(root / "coco", CLASSES), root, shape))
    (one,) = found.shapes
    assert same_shape(one.shape, shape, 0.01)


def test_rings_that_are_not_those_of_the_mask_any_more_are_not_believed(tmp_path: Path) -> None:
    shape = Outline((square(20, 20, 40),), (square(30, 30, 8),))
    path = write(CocoWriter(tmp_path / "coco", CLASSES), tmp_path, shape)
    (file,) = path.glob("annotations/*train.json")
    content = json.loads(file.read_text())
    for spoilt in ({"parts": [[1, 1, 9, 1, 9, 9]], "holes": []}, {"parts": [[1, 2]], "holes": []}, {"parts": 3}, 7):
        content["annotations"][0]["rings"] = spoilt
        file.write_text(json.dumps(content))
        (found,) = read_back(path)
        assert same_shape(found.shapes[0].shape, shape, 0.51), "along the pixels' edges"


@settings(max_examples=30, deadline=None)
@given(outlines())
def test_joined_rings_are_split_into_the_same(shape: Outline) -> None:
    assert same_shape(split_ring(join_rings(shape)), shape, 0)


def test_parts_that_run_opposite_ways_are_split_though_their_areas_cancel() -> None:
    first, second = square(0, 0, 10), square(20, 0, 10)[::-1]
    shape = Outline((first, second), (square(3, 3, 2), square(23, 3, 2)[::-1]))
    assert same_shape(split_ring(join_rings(shape)), shape, 0)


@pytest.mark.parametrize(
    "spike", [((5, 5), (6, 6), (7, 5), (6, 6)), ((5, 5), (6, 5), (7, 5))], ids=["bent", "straight"]
)
def test_a_spike_is_left_as_it_was_drawn(spike: tuple[tuple[float, float], ...]) -> None:
    """Out to (5, 5), along a line without area, and back: no ring of its own."""
    drawn = np.array([[0, 0], [0, 10], *spike, [5, 5], [0, 10], [10, 10], [10, 0]], float)
    (part,) = split_ring(drawn).parts
    assert np.array_equal(part, drawn)


def test_a_mask_of_noise_does_not_hold_up_what_writes_and_reads_it() -> None:
    side = 24
    holes = [square(10 * x + 3 + 0.1 * y, 10 * y + 3, 4)[::-1] for x in range(side) for y in range(side)]
    sieve = Outline((square(0, 0, 10 * side),), tuple(holes))
    begun = time.monotonic()
    line = join_rings(sieve)
    assert len(line) == 4 + (4 + 2) * side**2
    assert time.monotonic() - begun < 5, "it grew with the cube of the holes: 15 s for 400"
    begun = time.monotonic()
    read = split_ring(line)
    assert (len(read.parts), len(read.holes)) == (1, side**2)
    assert time.monotonic() - begun < 5, "each ring was looked for in each other one: 86 s"


def test_a_ring_joined_by_ultralytics_is_split() -> None:
    """Written out as its ``merge_multi_segment`` gives it: the way back runs through the end of the list."""
    first, second = square(0, 0, 10), square(20, 0, 10)
    joined = np.concatenate([np.roll(first, -1, 0), np.roll(first, -1, 0)[:1], second, second[:1]])
    assert same_shape(split_ring(joined), Outline((first, second)), 0)


@pytest.mark.parametrize("kind", ["detect", "segment", "obb"])
def test_what_a_line_cannot_hold_is_brought_to_what_it_can(tmp_path: Path, kind: Any) -> None:
    shapes = (BOX, TURNED, TRIANGLE, HOLES)
    (found,) = read_back(write(YoloWriter(tmp_path / "out", CLASSES, kind), tmp_path, *shapes))
    for one, shape in zip(found.shapes, shapes, strict=True):
        if kind != "obb" or not isinstance(shape, Outline):
            assert np.abs(np.array(enclosing_xyxy(one.shape)) - enclosing_xyxy(shape)).max() < 0.01
        else:
            assert isinstance(one.shape, RotatedBox)
    kinds = {"detect": tuple, "segment": Outline, "obb": RotatedBox}
    assert all(isinstance(one.shape, kinds[kind]) for one in found.shapes)


@pytest.mark.parametrize("kind", ["detect", "segment", "obb", "coco"])
def test_shapes_at_the_border_and_unknown_classes_are_counted(tmp_path: Path, kind: Any) -> None:
    writer = CocoWriter(tmp_path / "out", CLASSES) if kind == "coco" else YoloWriter(tmp_path / "out", CLASSES, kind)
    path = folder(tmp_path, {"a.jpg": picture(SIZE_WH, "JPEG")}) / "a.jpg"
    shapes = [
        ("Car", (-50.0, -50.0, 60.0, 40.0)),
        ("Car", (500.0, 10.0, 600.0, 60.0)),
        ("Ghost", BOX),
        ("Car", RotatedBox(-5, 100, 90, 40, 10)),
    ]
    with writer:
        writer.add(LabelledPicture(path, "a.jpg", SIZE_WH, tuple(LabelledShape(*one) for one in shapes)))
    said = " ".join(writer.written.notes)
    assert "class is not in the list: 1" in said and "cover nothing of their picture: 1" in said
    assert ("moved to its border: 2" in said) == (kind == "obb")
    assert writer.written.classes == {"Car": 2, "Straße": 0, "日本 7": 0}
    (found,) = read_back(writer.written.path)
    assert enclosing_xyxy(found.shapes[0].shape) == pytest.approx((0, 0, 60, 40), abs=0.01)


def test_the_whole_folder_as_ultralytics_wants_it(tmp_path: Path) -> None:
    import yaml

    out = write(YoloWriter(tmp_path / "out", CLASSES, "obb"), tmp_path, TURNED, splits=("train", "val"))
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == [
        "data.yaml", "images/train/a.jpg", "images/val/val-a.jpg", "labelmap.txt", "labels/train/a.txt",
        "labels/val/val-a.txt", MARKER,
    ]  # fmt: skip
    about = yaml.safe_load((out / "data.yaml").read_text())
    assert about == {
        "train": "images/train",
        "val": "images/val",
        "task": "obb",
        "nc": 3,
        "names": dict(enumerate(CLASSES)),
    }
    (line,) = (out / "labels" / "train" / "a.txt").read_text().splitlines()
    assert all(len(word.partition(".")[2]) == 6 for word in line.split()[1:]) and len(line.split()) == 9
    found = read_back(out)
    assert [(one.name, one.split) for one in found] == [("train/a.jpg", "train"), ("val/val-a.jpg", "val")]
    marker = written_by_tator(out)
    assert marker is not None and marker["type"] == "yolo-obb" and marker["pictures"] == {"train": 1, "val": 1}


def test_a_picture_without_boxes_stays(tmp_path: Path) -> None:
    for writer in (YoloWriter(tmp_path / "yolo", CLASSES), CocoWriter(tmp_path / "coco", CLASSES)):
        (found,) = read_back(write(writer, tmp_path))
        assert not found.shapes and found.path.is_file()


def test_pycocotools_reads_the_same_areas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    shapes = (BOX, TURNED, TRIANGLE, PARTS, HOLES)
    out = write(CocoWriter(tmp_path / "out", CLASSES), tmp_path, *shapes, splits=("train", "val"))
    for split in ("train", "val"):
        coco = COCO(str(out / "annotations" / f"instances_{split}.json"))
        assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == CLASSES
        assert len(coco.getImgIds()) == 1 and len(coco.getAnnIds()) == len(shapes)
        exact = [
            99.875 * 78.5,
            90 * 40,
            abs(signed_area(TRIANGLE.parts[0])),
            3600 + 6400,
            10_000 + 22_500 - 900 - 900 - 1600,
        ]
        for annotation, area, shape in zip(coco.loadAnns(coco.getAnnIds()), exact, shapes, strict=True):
            mask = coco.annToMask(annotation)
            assert int(mask.sum()) == annotation["area"] == pytest.approx(area, rel=0.02) and not annotation["iscrowd"]
            x, y, width, height = annotation["bbox"]
            assert (x, y, x + width, y + height) == pytest.approx(enclosing_xyxy(shape), abs=0.01)
        hole = coco.annToMask(coco.loadAnns(coco.getAnnIds())[4])
        assert hole[25, 25] and not hole[50, 50] and not hole[100, 300]


@pytest.mark.parametrize("kind", ["detect", "segment", "obb"])
def test_supervision_reads_the_same(tmp_path: Path, kind: Any) -> None:
    supervision = pytest.importorskip("supervision")
    shapes: dict[str, tuple[Shape, ...]] = {
        "detect": (BOX, (0.0, 0.0, 400.0, 300.0)), "segment": (TRIANGLE, PARTS, HOLES),
        "obb": (TURNED, RotatedBox(90, 90, 50, 30, -70)),
    }  # fmt: skip
    out = write(YoloWriter(tmp_path / "out", CLASSES, kind), tmp_path, *shapes[kind])
    read = supervision.DetectionDataset.from_yolo(
        str(out / "images" / "train"), str(out / "labels" / "train"), str(out / "data.yaml"),
        force_masks=kind == "segment", is_obb=kind == "obb",
    )  # fmt: skip
    ((_, _, detections),) = list(read)
    assert read.classes == CLASSES and len(detections) == len(shapes[kind])
    assert detections.class_id.tolist() == [number % 3 for number in range(len(shapes[kind]))]
    for number, shape in enumerate(shapes[kind]):
        if kind == "obb":
            assert np.abs(detections.data["xyxyxyxy"][number] - corners(shape)).max() < 0.01
        elif kind == "detect":
            assert np.abs(detections.xyxy[number] - enclosing_xyxy(shape)).max() < 0.01
        else:
            assert np.abs(detections.xyxy[number] - enclosing_xyxy(shape)).max() <= 1
    if kind == "segment":
        triangle, parts, holes = detections.mask
        assert parts[50, 50] and parts[80, 190] and not parts[100, 110] and triangle[60, 60]
        assert holes[25, 25] and not holes[55, 55] and not holes[110, 310] and holes[150, 210]


def test_supervision_reads_coco(tmp_path: Path) -> None:
    supervision = pytest.importorskip("supervision")
    shapes = (BOX, TRIANGLE, PARTS, HOLES)
    out = write(CocoWriter(tmp_path / "out", CLASSES), tmp_path, *shapes)
    read = supervision.DetectionDataset.from_coco(
        str(out / "images" / "train"), str(out / "annotations" / "instances_train.json"), force_masks=True
    )
    ((_, _, detections),) = list(read)
    assert read.classes == CLASSES and len(detections) == len(shapes)
    for number, shape in enumerate(shapes):
        assert np.abs(detections.xyxy[number] - enclosing_xyxy(shape)).max() <= 0.01
    assert detections.mask[3][25, 25] and not detections.mask[3][50, 50]


def test_nothing_that_is_there_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(DatasetError, match="--force to move it aside"):
        YoloWriter(tmp_path / "out", CLASSES)
    writer = YoloWriter(tmp_path / "out", CLASSES, force=True)
    write(writer, tmp_path, BOX)
    moved = writer.written.moved
    assert moved is not None and moved.parent == tmp_path and (moved / "mine.txt").read_text() == "mine"
    assert len(read_back(tmp_path / "out")) == 1
    write(YoloWriter(tmp_path / "out", CLASSES, force=True), tmp_path, BOX)
    assert len(list(tmp_path.glob("out.before-*"))) == 2


def test_what_appears_meanwhile_is_not_written_over_either(tmp_path: Path) -> None:
    writer = YoloWriter(tmp_path / "out", CLASSES)
    with pytest.raises(DatasetError, match="There is something"), writer:
        folder(tmp_path, {"out/mine.txt": "mine"})
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (tmp_path / "out" / "mine.txt").exists()


@pytest.mark.parametrize("zipped", [False, True])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, zipped: bool) -> None:
    (tmp_path / "here").mkdir()
    with pytest.raises(FileNotFoundError), CocoWriter(tmp_path / "here" / "out", CLASSES, zipped=zipped) as writer:
        writer.add(LabelledPicture(tmp_path / "gone.jpg", "gone.jpg", SIZE_WH, ()))
    assert not list((tmp_path / "here").iterdir())


def test_a_zip_is_read_like_its_folder(tmp_path: Path) -> None:
    for name in ("out", "other.zip"):
        path = write(YoloWriter(tmp_path / name, CLASSES, zipped=True), tmp_path, BOX)
        assert path.name in {"out.zip", "other.zip"} and zipfile.is_zipfile(path)
        (found,) = read_back(path)
        assert same_shape(found.shapes[0].shape, BOX, 0.01)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "other.zip", "out.zip"]


def test_names_of_pictures_stay_apart_and_usable(tmp_path: Path) -> None:
    names = [
        "a.jpg",
        "sub/a.jpg",
        "a.png",
        "A.JPG",
        "../evil.jpg",
        "con.jpg",
        "ü b?c*.jpg",
        ".jpg",
        "x" * 400 + ".jpg",
        "no-suffix",
        "a.txt",
    ]
    path = folder(tmp_path, {"source.jpg": picture(SIZE_WH, "JPEG")}) / "source.jpg"
    with YoloWriter(tmp_path / "out", CLASSES) as writer:
        for name in names:
            writer.add(LabelledPicture(path, name, SIZE_WH, (LabelledShape("Car", BOX),)))
    files = [one.name for one in (tmp_path / "out" / "images" / "train").iterdir()]
    stems = [Path(name).stem.casefold() for name in files]
    assert len(files) == len(set(stems)) == len(names) and {"a.jpg", "sub-a.jpg", "ü b_c_.jpg", "_con.jpg"} <= set(
        files
    )
    assert all(len(one.shapes) == 1 for one in by_name(read_back(tmp_path / "out")).values())
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out", "source.jpg"]


def test_pictures_linked_copied_or_left_where_they_are(tmp_path: Path) -> None:
    link = write(YoloWriter(tmp_path / "link", CLASSES, images="link"), tmp_path, BOX)
    assert (link / "images" / "train" / "a.jpg").samefile(tmp_path / "a.jpg")
    copy = write(YoloWriter(tmp_path / "copy", CLASSES), tmp_path, BOX)
    assert not (copy / "images" / "train" / "a.jpg").samefile(tmp_path / "a.jpg")
    none = write(CocoWriter(tmp_path / "none", CLASSES, images="none"), tmp_path, BOX)
    assert not list(none.rglob("*.jpg"))
    content = json.loads((none / "annotations" / "instances_train.json").read_text())
    assert content["images"][0]["file_name"] == "a.jpg" and len(content["annotations"]) == 1
    shutil.rmtree(link)
    assert (tmp_path / "a.jpg").exists()
