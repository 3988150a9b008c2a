"""Pictures, requests and a job for the tests of training SAM 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tator_sdk.geometry import Outline, Xyxy
from tator_sdk.sam3_request import Sam3Training
from training.sam3.tiny import Shape
from training.samples import Sample, Samples, labelled

SHAPE = Shape(side=56, patch=14, vision_hidden=32, hidden=32, queries=8)
WORDS = ("red car", "blue boat", "green tree", "car", "bus")
CLASSES = ("car", "bus")
COLOURS = {"car": (220, 30, 30), "bus": (30, 30, 220)}
FAST: dict[str, Any] = {
    "batch": 2, "accumulate": 1, "epochs": 2, "evaluate_pictures": 1, "patience": 0, "checkpoint_every": 2,
    "warm_up": 0, "cool_down": 0,
}  # fmt: skip
"""Settings of trainings that only have to run."""


def picture(size_wh: tuple[int, int], objects: Sequence[tuple[str, Xyxy]], seed: int = 0) -> NDArray[np.uint8]:
    """Dark noise with a rectangle in its class's colour for each object."""
    pixels = np.random.default_rng(seed).integers(0, 12, (size_wh[1], size_wh[0], 3), np.uint8)
    for label, (x0, y0, x1, y1) in objects:
        pixels[int(y0) : int(y1), int(x0) : int(x1)] = COLOURS[label]
    return pixels


def sample(
    name: str, objects: Sequence[tuple[str, Xyxy]], size_wh: tuple[int, int] = (84, 84), outlined: bool = False
) -> Sample:
    pixels = picture(size_wh, objects)

    def shape(box: Xyxy) -> Any:
        x0, y0, x1, y1 = box
        return Outline((np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64),)) if outlined else box

    return Sample(name, lambda: pixels, size_wh, tuple(labelled(label, shape(box)) for label, box in objects))


def samples(train: int = 4, held_out: int = 2, outlined: bool = False) -> Samples:
    """One object each, in turn of either class."""
    made = [
        sample(f"{number}", [(CLASSES[number % 2], (10.0 + number, 14.0, 60.0, 70.0))], outlined=outlined)
        for number in range(train + held_out)
    ]
    return Samples(tuple(made[:train]), tuple(made[train:]), CLASSES, "drawn rectangles")


def request(**changes: Any) -> Sam3Training:
    return Sam3Training(dataset="drawn", **{**FAST, **changes})
