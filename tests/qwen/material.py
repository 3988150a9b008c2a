"""Pictures with a bright rectangle each, tiny models, and a job that can be stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tator_sdk.geometry import Xyxy
from tator_sdk.qwen_request import QwenTraining
from tator_sdk.settings import Settings
from training.job import JobCancelled, LocalJob
from training.samples import Labelled, Sample, Samples, labelled

CLASSES = ("car", "bus")
COLOURS = {"car": (220, 30, 30), "bus": (30, 30, 220)}
FAST: dict[str, Any] = {
    "batch": 2, "accumulate": 1, "epochs": 2, "evaluate_pictures": 1, "max_new_tokens": 16, "patience": 0,
    "checkpoint_every": 2,
}  # fmt: skip
"""Settings of trainings that only have to run."""


def picture(size_wh: tuple[int, int], objects: Sequence[tuple[str, Xyxy]], seed: int = 0) -> NDArray[np.uint8]:
    """Dark noise with a rectangle in its class's colour for each object."""
    pixels = np.random.default_rng(seed).integers(0, 12, (size_wh[1], size_wh[0], 3), np.uint8)
    for label, (x0, y0, x1, y1) in objects:
        pixels[int(y0) : int(y1), int(x0) : int(x1)] = COLOURS[label]
    return pixels


def sample(
    name: str, objects: Sequence[tuple[str, Xyxy]], size_wh: tuple[int, int] = (84, 84), seed: int = 0
) -> Sample:
    pixels = picture(size_wh, objects, seed)
    return Sample(name, lambda: pixels, size_wh, tuple(labelled(label, box) for label, box in objects))


def samples(train: int = 4, held_out: int = 2) -> Samples:
    """One object each, in turn of either class."""
    made = [
        sample(f"{number}", [(CLASSES[number % 2], (10.0 + number, 14.0, 60.0, 70.0))], seed=number)
        for number in range(train + held_out)
    ]
    return Samples(tuple(made[:train]), tuple(made[train:]), CLASSES, "drawn rectangles")


def thing(label: str, *box: float) -> Labelled:
    return labelled(label, (box[0], box[1], box[2], box[3]))


def request(**changes: Any) -> QwenTraining:
    return QwenTraining(dataset="drawn", **{**FAST, **changes})


def settings_of(home: Path, base: Path) -> Settings:
    return Settings(home=home, qwen_model_name=str(base), device="cpu", offline=True)


def yolo(folder: Path, count: int = 10) -> Path:
    """A YOLO folder of pictures of which the last shows nothing."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    (folder / "labelmap.txt").write_text("car\nbus\ntram\n")
    for number in range(count):
        objects = [(CLASSES[number % 2], (10.0 + number, 14.0, 60.0, 70.0))] if number < count - 1 else []
        cv2.imwrite(str(folder / "images" / f"{number}.png"), picture((84, 84), objects, number)[..., ::-1])
        lines = [
            f"{CLASSES.index(label)} {(x0 + x1) / 168} {(y0 + y1) / 168} {(x1 - x0) / 84} {(y1 - y0) / 84}\n"
            for label, (x0, y0, x1, y1) in objects
        ]
        (folder / "labels" / f"{number}.txt").write_text("".join(lines))
    return folder


class Watched(LocalJob):
    """A job whose log is kept, and that a person stops at a step."""

    def __init__(self, settings: Settings, job_id: str = "watched", stop_at: int | None = None) -> None:
        super().__init__(settings, job_id)
        self.lines: list[str] = []
        self.whats: list[str] = []
        self._stop_at = stop_at

    def log(self, line: str) -> None:
        self.lines.append(line)

    def progress(self, done: int, total: int, what: str) -> None:
        self.whats.append(what)
        if self._stop_at is not None and what == "training" and done >= self._stop_at:
            raise JobCancelled
