"""YOLO data sets: ``images/{train,val}``, ``labels/{train,val}``, ``data.yaml`` and ``labelmap.txt``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import yaml

from tator_sdk.formats.dataset import LabelledPicture, Outline, Ring, Shape, enclosing_xyxy
from tator_sdk.formats.rings import join_rings
from tator_sdk.formats.writing import DatasetWriter, Images
from tator_sdk.formats.yolo_lines import write_line
from tator_sdk.geometry import RotatedBox, clip_xyxy

YoloKind = Literal["detect", "segment", "obb"]
LEAST_SIDE = 1e-6  # share of the picture: less becomes 0.000000

UNKNOWN = "Shapes left out because their class is not in the list"
EMPTY = "Shapes left out because they cover nothing of their picture"
MOVED = "Oriented boxes that reach out of their picture, whose corners were moved to its border"


class YoloWriter(DatasetWriter):
    """Writes detection, segmentation or oriented boxes; see `DatasetWriter`.

    What a line cannot hold is brought to what it can: for ``detect`` the upright box around a shape; for ``obb`` the
    smallest rotated box; for ``segment`` the corners of a box, and parts and holes in one ring
    (`tator_sdk.formats.rings`).
    """

    def __init__(
        self,
        output: Path,
        classes: Sequence[str],
        kind: YoloKind = "detect",
        *,
        images: Images = "copy",
        force: bool = False,
        zipped: bool = False,
        source: Mapping[str, Any] | None = None,
    ) -> None:
        """See `DatasetWriter`; ``kind`` is what the lines are."""
        super().__init__(output, classes, images=images, force=force, zipped=zipped, source=source)
        self.kind = kind
        self.dataset_type = f"yolo-{kind}"

    def add(self, picture: LabelledPicture, data: bytes | None = None) -> None:
        """Write a picture and its label file, which is empty where it has no shapes. See `DatasetWriter`."""
        split = picture.split or "train"
        name = self.place(picture, data, f"images/{split}")
        lines = []
        for one in picture.shapes:
            index = self._indices.get(one.label)
            if index is None:
                self.note(UNKNOWN)
                continue
            values = self._values(one.shape, picture.size_wh)
            if values is None:
                self.note(EMPTY)
                continue
            self._counts[one.label] += 1
            lines.append(write_line(index, values) + "\n")
        target = self.folder / "labels" / split / f"{name.rpartition('.')[0]}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(lines))

    def finish(self) -> None:
        """Write the names. See `DatasetWriter`."""
        splits = [split for split in ("train", "val", "test") if split != "test" or self._pictures[split]]
        for split in splits:
            (self.folder / "images" / split).mkdir(parents=True, exist_ok=True)
            (self.folder / "labels" / split).mkdir(parents=True, exist_ok=True)
        about = {
            **{split: f"images/{split}" for split in splits},
            "task": self.kind,  # ultralytics leaves it alone; Tator reads it: four points may be two things
            "nc": len(self.classes),
            "names": dict(enumerate(self.classes)),
        }
        text = yaml.safe_dump(about, sort_keys=False, allow_unicode=True)
        (self.folder / "data.yaml").write_text(text, "utf-8")
        write_labelmap(self.folder, self.classes)

    def _values(self, shape: Shape, size_wh: tuple[int, int]) -> list[float] | None:
        """A line's numbers; None where nothing of the shape lies in the picture."""
        size = np.array(size_wh, np.float64)
        if self.kind == "detect":
            x0, y0, x1, y1 = clip_xyxy(enclosing_xyxy(shape), size_wh)
            box = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
            values = (np.array(box) / np.tile(size, 2)).tolist()
            return values if min(values[2:]) >= LEAST_SIDE else None
        shares = (self._oriented(shape) if self.kind == "obb" else ring_of(shape)) / size
        within = shares.clip(0, 1)
        if float(np.ptp(within, axis=0).min()) < LEAST_SIDE:
            return None
        if self.kind == "obb" and np.abs(within - shares).max() > LEAST_SIDE:
            self.note(MOVED)
        return [float(value) for value in within.ravel()]

    @staticmethod
    def _oriented(shape: Shape) -> Ring:
        if isinstance(shape, Outline):
            points = np.concatenate(shape.parts).astype(np.float32)
            return np.asarray(cv2.boxPoints(cv2.minAreaRect(points)), np.float64)
        return ring_of(shape)


def ring_of(shape: Shape) -> Ring:
    """Any shape as one ring of corners (N, 2) in pixels, clockwise for boxes."""
    if isinstance(shape, Outline):
        return join_rings(shape)
    if isinstance(shape, RotatedBox):
        return shape.corners()
    x0, y0, x1, y1 = shape
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)


def write_labelmap(folder: Path, classes: Sequence[str]) -> None:
    """``labelmap.txt``: a name a line."""
    (folder / "labelmap.txt").write_text("".join(" ".join(name.split()) + "\n" for name in classes), "utf-8")
