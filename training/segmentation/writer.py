"""The data set that a build makes: YOLO-seg (or YOLO-OBB) and COCO side by side, as trainers expect them.

``train/`` and ``val/``, each with ``images/``, ``labels/`` and ``_annotations.coco.json``; ``labelmap.txt``,
``data.yaml``, ``sam3_dataset.json``, and ``kept_boxes.json`` with the boxes that had no usable mask.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml

from tator_sdk.formats.coco_file import CocoFile
from tator_sdk.formats.dataset import LabelledPicture
from tator_sdk.formats.write_coco import geometry_of
from tator_sdk.formats.write_yolo import EMPTY, LEAST_SIDE, MOVED, UNKNOWN, ring_of, write_labelmap
from tator_sdk.formats.writing import DatasetWriter, Images, written_by_tator
from tator_sdk.formats.yolo_lines import write_line
from tator_sdk.geometry import RotatedBox

COCO_FILE, SAM3_FILE, KEPT_FILE = "_annotations.coco.json", "sam3_dataset.json", "kept_boxes.json"
SPLITS = ("train", "val")


class SegmentationWriter(DatasetWriter):
    """Writes polygons or oriented boxes; see `DatasetWriter`."""

    def __init__(
        self,
        output: Path,
        classes: Sequence[str],
        build: str,
        *,
        oriented: bool = False,
        images: Images = "link",
        source: Mapping[str, Any] | None = None,
    ) -> None:
        """See `DatasetWriter`.

        Args:
            output: folder to be made.
            classes: names, in the order of their indices.
            build: whose work it is; what a killed attempt of it left half-written is begun anew.
            oriented: of oriented boxes.
            images: as `DatasetWriter` has it.
            source: likewise.
        """
        super().__init__(output, classes, images=images, source={**(source or {}), "build": build})
        self.oriented = oriented
        self.dataset_type = "yolo-obb" if oriented else "yolo-segment"
        self._build = build
        self._files: dict[str, CocoFile] = {}
        self._annotations = 0
        self._kept: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        parent = self.output.absolute().parent
        parent.mkdir(parents=True, exist_ok=True)
        self.folder = parent / f".{self.output.name}.partial-{self._build}"
        shutil.rmtree(self.folder, ignore_errors=True)  # this build's own, of an attempt that was killed
        self.folder.mkdir()
        return self

    def add(self, picture: LabelledPicture, data: bytes | None = None) -> None:
        """Write a picture with its label file and its COCO entries. See `DatasetWriter`."""
        split = picture.split or "train"
        name = self.place(picture, data, f"{split}/images")
        file, number = self._file(split), self._pictures[split]
        file.add_image(number, f"images/{name}", picture.size_wh)
        lines = []
        for one in picture.shapes:
            index = self._indices.get(one.label)
            if index is None:
                self.note(UNKNOWN)
                continue
            geometry = geometry_of(one.shape, picture.size_wh)
            shares = ring_of(one.shape) / np.array(picture.size_wh, np.float64)
            within = shares.clip(0, 1)
            if geometry is None or float(np.ptp(within, axis=0).min()) < LEAST_SIDE:
                self.note(EMPTY)
                continue
            if isinstance(one.shape, RotatedBox) and np.abs(within - shares).max() > LEAST_SIDE:
                self.note(MOVED)
            self._annotations += 1
            self._counts[one.label] += 1
            file.add_annotation(self._annotations, number, index + 1, geometry)
            lines.append(write_line(index, [float(value) for value in within.ravel()]) + "\n")
        target = self.folder / split / "labels" / f"{name.rpartition('.')[0]}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(lines))

    def kept(self, picture: str, label: str, xyxy: Sequence[float], why: str) -> None:
        """Take down a box that was kept for want of a usable mask."""
        box = [round(float(edge), 3) for edge in xyxy]
        self._kept.append({"picture": picture, "label": label, "xyxy": box, "why": why})

    def finish(self) -> None:
        """Write what is known only at the end. See `DatasetWriter`."""
        splits = [*SPLITS, *(split for split in self._files if split not in SPLITS)]
        for split in splits:
            for part in ("images", "labels"):
                (self.folder / split / part).mkdir(parents=True, exist_ok=True)
            self._file(split).finish(self.folder / split / COCO_FILE, self.classes)
        write_labelmap(self.folder, self.classes)
        names = dict(enumerate(self.classes))
        about: dict[str, Any] = {split: f"{split}/images" for split in splits}
        about |= {"task": "obb" if self.oriented else "segment", "nc": len(names), "names": names}
        (self.folder / "data.yaml").write_text(yaml.safe_dump(about, sort_keys=False, allow_unicode=True), "utf-8")
        _write(self.folder / KEPT_FILE, self._kept)
        _write(
            self.folder / SAM3_FILE,
            {
                "id": self.output.name,
                "label": self.output.name,
                "type": "seg",
                "classes": list(self.classes),
                "image_count": sum(self._pictures.values()),
                "train_count": self._pictures["train"],
                "val_count": self._pictures["val"],
                "annotations": {split: f"{split}/{COCO_FILE}" for split in splits},
                "source": self._source,
            },
        )

    def _file(self, split: str) -> CocoFile:
        if split not in self._files:
            self._files[split] = CocoFile(self.folder, split)
        return self._files[split]


def made_by(folder: Path, build: str) -> bool:
    """Whether a folder is what a build has made."""
    about = written_by_tator(folder)
    return about is not None and about.get("source", {}).get("build") == build


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")
