"""Reading data sets: memory that does not grow with them, and how fast. 20,000 pictures with 200,000 polygons."""

from __future__ import annotations

import gc
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from benchmarks.report import Figure
from tator_sdk.formats import open_dataset
from tator_sdk.formats.dataset import DatasetReader

PICTURES, OBJECTS, CORNERS = 20_000, 10, 30
CLASSES = [f"class {number}" for number in range(20)]
SIZE_WH = (640, 480)
A_FOLDER = 1000  # pictures of one folder, and links that one file gets
FIRST = 1000  # pictures after which growth is counted
DIFFERENT = 500
LIMIT_MB = 50.0


def measure() -> list[Figure]:
    """The figures."""
    with tempfile.TemporaryDirectory(prefix="tator-formats-") as place:
        root = Path(place)
        _pictures(root / "images")
        coco, megabytes = _coco(root), (root / "set.json").stat().st_size / 1e6
        figures = [Figure("formats.coco_file", megabytes, "MB", "higher")]
        opened, rate, peak, growth = _read(lambda: open_dataset(coco, images=root / "images"))
        figures += [
            Figure("formats.coco_index_rate", megabytes / opened, "MB/s", "higher"),
            Figure("formats.coco_rate", rate, "pictures/s", "higher"),
            Figure("formats.coco_memory_mb", peak, "MB", "lower", LIMIT_MB),
            Figure("formats.coco_growth_mb", growth, "MB", "lower", LIMIT_MB),
        ]
        _yolo(root)
        _, rate, peak, growth = _read(lambda: open_dataset(root, "segment"))
        return [
            *figures,
            Figure("formats.yolo_rate", rate, "pictures/s", "higher"),
            Figure("formats.yolo_memory_mb", peak, "MB", "lower", LIMIT_MB),
            Figure("formats.yolo_growth_mb", growth, "MB", "lower", LIMIT_MB),
        ]


def _read(opener: Callable[[], DatasetReader]) -> tuple[float, float, float, float]:
    """Seconds of opening, pictures a second, most memory beyond that before it and beyond the first thousand's, MB."""
    process = psutil.Process()
    gc.collect()
    before = process.memory_info().rss
    start = time.monotonic()
    with closing(opener()) as reader:
        opened = time.monotonic() - start
        most, after_first, shapes = process.memory_info().rss, 0, 0
        start = time.monotonic()
        for number, picture in enumerate(reader.pictures(), 1):
            shapes += len(picture.shapes)
            if number % 200 == 0:
                most = max(most, process.memory_info().rss)
            if number == FIRST:
                after_first = most
        seconds = time.monotonic() - start
    if shapes != PICTURES * OBJECTS:
        raise RuntimeError(f"{shapes} shapes were read of {PICTURES * OBJECTS}")
    return opened, PICTURES / seconds, (most - before) / 1e6, (most - after_first) / 1e6


def _name(number: int) -> str:
    return f"{number // A_FOLDER:03}/{number:06}.jpg"


def _pictures(folder: Path) -> None:
    for number in range(PICTURES):
        path, first = folder / _name(number), folder / _name(number - number % A_FOLDER)
        if path == first:
            path.parent.mkdir(parents=True)
            Image.new("RGB", SIZE_WH, "teal").save(path)
        else:
            os.link(first, path)


def _rings(seed: int) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    """Outlines to take by turns: reading each costs the same, and making them all would take longer than the rest."""
    rng = np.random.default_rng(seed)
    turns = 2 * np.pi * np.arange(CORNERS) / CORNERS
    round_about = np.stack([np.cos(turns), np.sin(turns)], 1)
    return [
        rng.uniform([100, 100], [540, 380]) + rng.uniform(20, 90, CORNERS)[:, None] * round_about
        for _ in range(DIFFERENT)
    ]


def _coco(root: Path) -> Path:
    tails = [
        f'"bbox": {json.dumps([*ring.min(0).tolist(), *np.ptp(ring, axis=0).tolist()])}, '
        f'"segmentation": {json.dumps([ring.ravel().tolist()])}}}'
        for ring in (ring.round(2) for ring in _rings(0))
    ]
    with (root / "set.json").open("w") as file:
        file.write('{"annotations": [')
        for number in range(PICTURES * OBJECTS):
            head = f'{{"id": {number}, "image_id": {number % PICTURES}, "category_id": {number % 20}, "iscrowd": 0, '
            file.write(("," if number else "") + head + tails[number % DIFFERENT])
        images = [
            {"id": number, "file_name": _name(number), "width": SIZE_WH[0], "height": SIZE_WH[1]}
            for number in range(PICTURES)
        ]
        categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES)]
        file.write(f'], "images": {json.dumps(images)}, "categories": {json.dumps(categories)}}}')
    return root / "set.json"


def _yolo(root: Path) -> None:
    (root / "labelmap.txt").write_text("\n".join(CLASSES))
    tails = [" ".join(f"{value:.6f}" for value in (ring / SIZE_WH).ravel()) for ring in _rings(1)]
    for number in range(PICTURES):
        lines = [f"{number % 20} {tails[(number + place) % DIFFERENT]}\n" for place in range(OBJECTS)]
        path = (root / "labels" / _name(number)).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines))
