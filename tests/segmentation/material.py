"""Pictures and data sets for the tests of the segmentation builder."""

from __future__ import annotations

import hashlib
import io
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from tator_ml.engine.segmenters.base import Embedding
from tests.wire.conftest import BrightSegmenter


def png(pixels: np.ndarray) -> bytes:
    """Pixels (H, W, 3) as the bytes of a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


class Counting(BrightSegmenter):
    """An engine's segmenter that counts the pictures it encodes, as slow as told."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds = seconds
        self.encoded: Counter[str] = Counter()

    def encode(self, image: np.ndarray) -> Embedding:
        self.encoded[hashlib.sha256(image.tobytes()).hexdigest()] += 1
        time.sleep(self.seconds)
        return super().encode(image)


def bright_pictures(folder: Path, count: int, split: bool = False) -> Path:
    """A YOLO data set: each picture has a bright rectangle at a place of its own, a box around it and an empty one."""
    for number in range(count):
        part = ("train" if number % 4 else "val") if split else ""
        pixels = np.full((96, 128, 3), 20, np.uint8)
        x, y = 10 + number % 60, 10 + number % 40
        pixels[y : y + 40, x : x + 50] = 230
        pixels[0, 0] = number  # no two alike
        images, labels = folder / "images" / part, folder / "labels" / part
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        (images / f"{number:03}.png").write_bytes(png(pixels))
        box = ((x + 25) / 128, (y + 20) / 96, 56 / 128, 46 / 96)
        lines = [f"1 {' '.join(f'{value:.6f}' for value in box)}"]
        if number % 5 == 0:  # in which nothing is seen
            lines.append("0 0.02 0.95 0.02 0.05")
        (labels / f"{number:03}.txt").write_text("\n".join(lines) + "\n")
    (folder / "labelmap.txt").write_text("nothing\nbright\n")
    return folder


def hashes(folder: Path) -> dict[str, tuple[str, int]]:
    """Content and time of every file of a folder."""
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
