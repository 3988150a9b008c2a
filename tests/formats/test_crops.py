"""Objects as pictures of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tator_sdk.formats.dataset import LabelledPicture, LabelledShape
from tator_sdk.formats.write_crops import CropsWriter
from tests.formats.material import folder, picture

CLASSES = ["Straße", "Car"]


def test_crops(tmp_path: Path) -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[20:60, 30:90] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    shapes = (
        LabelledShape("Straße", (30.4, 20.0, 90.0, 60.0)),
        LabelledShape("Car", (-5.0, 0.0, 20.0, 20.0)),
        LabelledShape("Car", (300.0, 0.0, 310.0, 9.0)),
    )
    with CropsWriter(tmp_path / "out", CLASSES) as writer:
        writer.add(LabelledPicture(tmp_path / "a.png", "a.png", (200, 100), shapes))
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jpg")) == ["a-Car-1.jpg", "a-Straße-0.jpg"]
    crop = np.asarray(Image.open(tmp_path / "out" / "a-Straße-0.jpg"))
    assert crop.shape == (40, 60, 3) and crop.min() > 240
    assert Image.open(tmp_path / "out" / "a-Car-1.jpg").size == (20, 20)
    assert writer.written.classes["Car"] == 1 and "cover nothing" in writer.written.notes[0]


def test_crops_of_a_picture_that_lies_on_its_side(tmp_path: Path) -> None:
    folder(tmp_path, {"a.jpg": picture((200, 100), "JPEG", turned=6)})
    with CropsWriter(tmp_path / "out", CLASSES) as writer:
        writer.add(
            LabelledPicture(
                tmp_path / "a.jpg", "a.jpg", (100, 200), (LabelledShape("Car", (10.0, 100.0, 90.0, 190.0)),)
            )
        )
    assert Image.open(tmp_path / "out" / "a-Car-0.jpg").size == (80, 90)


def test_crops_whose_names_would_be_one_are_two(tmp_path: Path) -> None:
    folder(tmp_path, {"a.png": picture((50, 50)), "a-b.png": picture((50, 50))})
    with CropsWriter(tmp_path / "out", ["b-c", "c"]) as writer:
        for name, label in (("a.png", "b-c"), ("a-b.png", "c")):
            shapes = (LabelledShape(label, (0.0, 0.0, 20.0, 20.0)),)
            writer.add(LabelledPicture(tmp_path / name, name, (50, 50), shapes))
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jpg")) == ["a-b-c-0-2.jpg", "a-b-c-0.jpg"]
