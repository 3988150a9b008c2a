"""COCO data sets: ``annotations/instances_{train,val}.json`` beside ``images/{train,val}``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from tator_sdk.formats.coco_file import CocoFile
from tator_sdk.formats.dataset import LabelledPicture, Outline, Shape
from tator_sdk.formats.masks import mask_of_rings
from tator_sdk.formats.write_yolo import EMPTY, UNKNOWN, ring_of, write_labelmap
from tator_sdk.formats.writing import DatasetWriter, Images
from tator_sdk.geometry import RotatedBox

DECIMALS = 3  # of a pixel


class CocoWriter(DatasetWriter):
    """Writes boxes and outlines; see `DatasetWriter`.

    Every annotation has a ``segmentation``: polygons, a box's own corners (with ``rotation`` where it is turned), and
    run lengths for outlines with holes, which COCO's polygons cannot have, with the exact ``rings`` beside them.
    ``area`` is that of the mask that pycocotools makes of it.
    """

    dataset_type = "coco"

    def __init__(
        self,
        output: Path,
        classes: Sequence[str],
        *,
        images: Images = "copy",
        force: bool = False,
        zipped: bool = False,
        source: Mapping[str, Any] | None = None,
    ) -> None:
        """See `DatasetWriter`."""
        super().__init__(output, classes, images=images, force=force, zipped=zipped, source=source)
        self._files: dict[str, CocoFile] = {}
        self._annotations = 0

    def add(self, picture: LabelledPicture, data: bytes | None = None) -> None:
        """Write a picture and its annotations. See `DatasetWriter`."""
        split = picture.split or "train"
        name = self.place(picture, data, f"images/{split}")
        file, number = self._file(split), sum(self._pictures.values())
        file.add_image(number, name, picture.size_wh)
        for one in picture.shapes:
            if one.label not in self._indices:
                self.note(UNKNOWN)
                continue
            geometry = geometry_of(one.shape, picture.size_wh)
            if geometry is None:
                self.note(EMPTY)
                continue
            self._annotations += 1
            self._counts[one.label] += 1
            file.add_annotation(self._annotations, number, self._indices[one.label] + 1, geometry)

    def finish(self) -> None:
        """Put the lists together, a file for each split. See `DatasetWriter`."""
        (self.folder / "annotations").mkdir(exist_ok=True)
        if not self._files:
            self._file("train")
        for split, file in self._files.items():
            file.finish(self.folder / "annotations" / f"instances_{split}.json", self.classes)
        self._files.clear()
        write_labelmap(self.folder, self.classes)

    def _file(self, split: str) -> CocoFile:
        if split not in self._files:
            self._files[split] = CocoFile(self.folder, split)
        return self._files[split]


def geometry_of(shape: Shape, size_wh: tuple[int, int]) -> dict[str, Any] | None:
    """``bbox``, ``segmentation``, ``area`` of an annotation; None where nothing of it lies in the picture."""
    width, height = size_wh
    size = np.array(size_wh, np.float64)
    if isinstance(shape, RotatedBox):
        ring = shape.corners().round(DECIMALS)  # corners beyond the border stay, or it were no rectangle any more
        area = _area([ring.ravel().tolist()], size_wh)
        box = np.concatenate([ring.min(0).clip(0, size), ring.max(0).clip(0, size)])
        geometry = {"segmentation": [ring.ravel().tolist()], "area": area, "rotation": round(shape.rotation, 6)}
        return {"bbox": _xywh(box), **geometry} if area else None
    rings = list(shape.parts) if isinstance(shape, Outline) else [ring_of(shape)]
    clipped = [ring.clip(0, size).round(DECIMALS) for ring in rings]
    parts = [ring for ring in clipped if float(np.ptp(ring, axis=0).min()) > 0]
    if not parts:
        return None
    lists = [ring.ravel().tolist() for ring in parts]
    points = np.concatenate(parts)
    bbox = _xywh(np.concatenate([points.min(0), points.max(0)]))
    if not isinstance(shape, Outline) or not shape.holes:
        return {"bbox": bbox, "segmentation": lists, "area": _area(lists, size_wh)}
    holes = [ring.clip(0, size).round(DECIMALS) for ring in shape.holes]
    mask = mask_of_rings(parts, holes, size_wh)
    runs = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    if not mask.any():
        return None
    counts = {"size": [height, width], "counts": runs["counts"].decode("ascii")}
    return {
        "bbox": [float(value) for value in coco_mask.toBbox(runs)],
        "segmentation": counts,
        "area": int(mask.sum()),
        "rings": {"parts": lists, "holes": [ring.ravel().tolist() for ring in holes]},
    }


def _area(lists: list[list[float]], size_wh: tuple[int, int]) -> int:
    width, height = size_wh
    return int(coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(lists, height, width))))


def _xywh(xyxy: np.ndarray[Any, np.dtype[np.float64]]) -> list[float]:
    low, high = xyxy[:2], xyxy[2:]
    return [round(float(value), DECIMALS) for value in (*low, *(high - low))]
