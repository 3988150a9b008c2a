"""COCO files of objects (https://cocodataset.org/#format-data): boxes, polygons of several parts, run lengths.

A polygon of four corners that is an upright rectangle is read as a box: that is how boxes are written for programs
that ask for a ``segmentation``. Run lengths of outlines with holes have their exact ``rings`` beside them where Tator
wrote them. Two things COCO does not have are read where other programs put them: ``rotation``
beside ``bbox`` (degrees clockwise; Tator writes it together with the four corners as ``segmentation``, alone it turns
the box about its top-left corner as Label Studio does), and ``attributes.rotation`` (CVAT: about the centre).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from tator_sdk.formats.coco_index import CocoImage, CocoIndex, looks_like_coco
from tator_sdk.formats.dataset import BadLine, DatasetError, LabelledPicture, LabelledShape, Outline, Ring, Shape
from tator_sdk.formats.masks import exact_outline, mask_of_rings, mask_of_rle
from tator_sdk.formats.oriented import rotated_box, within_picture
from tator_sdk.formats.yolo_layout import SPLITS
from tator_sdk.geometry import MaskArray, RotatedBox, clip_xyxy
from tator_sdk.images import ImageError, file_size_wh

SLACK = 0.01  # of the picture, that a polygon may reach out of it


class CocoReader:
    """One or several COCO files, read a picture at a time; `DatasetReader`."""

    kind = "coco"

    def __init__(
        self,
        files: Sequence[Path],
        images: Path | None = None,
        absent: bool = False,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Read the files' lists into an index on disk.

        Args:
            files: the JSON files, a split each where there are several.
            images: folder of the pictures. Default: looked for around each file.
            absent: yield pictures whose file is not there too, as their entries describe them.
            progress: told the bytes read so far and of how many, for each file anew.

        Raises:
            DatasetError: a file is no COCO file.
        """
        self._absent = absent
        self._missing: list[BadLine] = []
        self._parts: list[tuple[CocoIndex, list[Path], str]] = []
        try:
            for file in files:
                self._parts.append((CocoIndex(file, progress), _folders(file, images), split_of_file(file)))
        except BaseException:
            self.close()
            raise
        every = [name for index, _, _ in self._parts for name in index.categories.values()]
        self.classes = tuple(dict.fromkeys(every))
        self.notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(len(index) for index, _, _ in self._parts)

    def pictures(self) -> Iterator[LabelledPicture]:
        """Each picture, with its annotations. See `DatasetReader`."""
        self._missing.clear()
        for number, (index, folders, split) in enumerate(self._parts):
            prefix = "" if len(self._parts) == 1 else f"{split or number}/"
            if [one[2] for one in self._parts].count(split) > 1 and split:
                prefix = f"{split}-{number}/"
            for image in index.images():
                picture = self._picture(index, image, folders, prefix, split)
                if picture is not None:
                    yield picture

    def strays(self) -> Iterator[BadLine]:
        """Entries that belong to no picture, and pictures that are not there. See `DatasetReader`."""
        for index, _, _ in self._parts:
            yield from index.bad
            yield from index.orphans()
        yield from self._missing

    def close(self) -> None:
        """Remove the indexes. See `DatasetReader`."""
        for index, _, _ in self._parts:
            index.close()

    def _picture(
        self, index: CocoIndex, image: CocoImage, folders: list[Path], prefix: str, split: str
    ) -> LabelledPicture | None:
        path = _find(image.name, folders)
        said_wh = image.width, image.height
        bad: list[BadLine] = []
        try:
            size_wh = file_size_wh(path) if path else said_wh
        except ImageError as error:
            self._leave_out(index, image, f"{image.name}: {str(error).rstrip('.')}")
            return None
        if path is None and not (self._absent and all(said_wh)):
            self._leave_out(index, image, f"the picture {image.name} is not there")
            return None
        if not all(said_wh):
            said_wh = size_wh
        shapes: list[LabelledShape] = []
        if said_wh != size_wh:
            sides = "{} x {}".format(*said_wh), "{} x {}".format(*size_wh)
            reason = f"{image.name} is said to be {sides[0]}, but is seen as {sides[1]}"
            reason += " (its EXIF rotation)" if said_wh == size_wh[::-1] else ""
            bad.append(BadLine(index.file, image.seq, f"{reason}; its {index.count(image)} annotations are left out"))
        else:
            for seq, entry in index.annotations(image):
                try:
                    label = index.categories[_text(entry.get("category_id"))]
                    shapes.append(LabelledShape(label, shape_of(entry, size_wh), seq))
                except KeyError:
                    bad.append(BadLine(index.file, seq, f"category {entry.get('category_id')} is not in the list"))
                except (ValueError, TypeError, OverflowError) as error:
                    bad.append(BadLine(index.file, seq, str(error)))
        where = path or folders[0] / image.name
        return LabelledPicture(where, prefix + image.name, size_wh, tuple(shapes), split, tuple(bad))

    def _leave_out(self, index: CocoIndex, image: CocoImage, reason: str) -> None:
        count = index.count(image)
        said = f"{reason}; its annotations are left out: {count}" if count else reason
        self._missing.append(BadLine(index.file, image.seq, said))


def shape_of(entry: dict[str, Any], size_wh: tuple[int, int]) -> Shape:
    """An annotation's shape in pixels: its segmentation where it has one, else its box.

    Raises:
        ValueError: it cannot be used; the message says why.
    """
    segmentation, rotation = entry.get("segmentation"), _rotation(entry.get("rotation"))
    if isinstance(segmentation, dict):
        mask = mask_of_rle(segmentation, size_wh)
        outline = _exact(entry.get("rings"), mask, size_wh) or exact_outline(mask)
        if outline is None:
            raise ValueError("its mask is empty")
        return outline
    if isinstance(segmentation, list) and segmentation:
        written = segmentation if isinstance(segmentation[0], list) else [segmentation]
        if rotation is not None and len(written) == 1 and len(written[0]) == 8:
            return within_picture(rotated_box(_points(written[0])), size_wh)
        rings = tuple(_ring(part, size_wh) for part in written)
        return _box_of_corners(rings) or Outline(rings)
    return _box(entry, rotation, size_wh)


def _exact(rings: Any, mask: MaskArray, size_wh: tuple[int, int]) -> Outline | None:
    """The rings that Tator writes beside run lengths; None where they are not those of the mask (any more)."""
    if not isinstance(rings, dict) or not all(isinstance(rings.get(key), list) for key in ("parts", "holes")):
        return None
    try:
        parts, holes = (tuple(_ring(one, size_wh) for one in rings[key]) for key in ("parts", "holes"))
    except ValueError:
        return None
    same = bool(parts) and np.array_equal(mask_of_rings(parts, holes, size_wh), mask)
    return Outline(parts, holes) if same else None


def _box_of_corners(rings: tuple[Ring, ...]) -> Shape | None:
    """An upright rectangle, as boxes are written for programs that ask for a segmentation; None for other rings."""
    if len(rings) != 1 or len(rings[0]) != 4:
        return None
    (x0, y0), (x1, y1) = rings[0].min(0), rings[0].max(0)
    corners = {(x0, y0), (x1, y0), (x1, y1), (x0, y1)}
    return (float(x0), float(y0), float(x1), float(y1)) if {tuple(one) for one in rings[0]} == corners else None


def _box(entry: dict[str, Any], rotation: float | None, size_wh: tuple[int, int]) -> Shape:
    written = entry.get("bbox")
    if not isinstance(written, list) or len(written) != 4:
        raise ValueError("the annotation has neither a segmentation nor a bbox of four numbers")
    x, y, width, height = _numbers(written)
    if width <= 0 or height <= 0:
        raise ValueError("the box has no area")
    attributes = entry.get("attributes")
    about_centre = _rotation(attributes.get("rotation")) if isinstance(attributes, dict) else None
    if rotation:
        return within_picture(RotatedBox(x, y, width, height, rotation), size_wh)
    if about_centre:
        angle = math.radians(about_centre)
        across, down = width / 2, height / 2
        left = x + across - across * math.cos(angle) + down * math.sin(angle)
        top = y + down - across * math.sin(angle) - down * math.cos(angle)
        return within_picture(RotatedBox(left, top, width, height, about_centre), size_wh)
    clipped = clip_xyxy((x, y, x + width, y + height), size_wh)
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        raise ValueError("the box lies outside of the picture")
    return clipped


def _ring(part: Any, size_wh: tuple[int, int]) -> Ring:
    points = _points(part)
    size = np.array(size_wh, np.float64)
    slack = SLACK * size + 1
    if (points < -slack).any() or (points > size + slack).any():
        raise ValueError("the polygon reaches out of the picture")
    points = points.clip(0, size)
    if len(points) > 3 and np.array_equal(points[0], points[-1]):
        points = points[:-1]
    if float(np.ptp(points, axis=0).min()) <= 0:
        raise ValueError("the polygon has no area")
    return points


def _points(part: Any) -> Ring:
    if not isinstance(part, list) or len(part) < 6 or len(part) % 2:
        raise ValueError("a polygon has an even count of six numbers or more")
    return np.array(_numbers(part)).reshape(-1, 2)


def _numbers(values: list[Any]) -> list[float]:
    if not all(isinstance(one, (int, float)) and math.isfinite(one) for one in values):
        raise ValueError("a coordinate that is no finite number")
    return [float(one) for one in values]


def _rotation(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def split_of_file(file: Path) -> str:
    """``train``, ``val`` or ``test`` by the words in a file's or its folder's name; empty where they say none."""
    for text in (file.stem, file.parent.name):
        for word in re.findall(r"[a-z]+", text.lower()):
            if word in SPLITS:
                return SPLITS[word]
    return ""


def find_coco_files(folder: Path) -> list[Path]:
    """COCO files of a folder: in it, in ``annotations``, or in its splits' folders; ``instances_*`` before others."""
    places = [folder, folder / "annotations", *(one for one in sorted(folder.iterdir()) if one.name.lower() in SPLITS)]
    found = [
        file for place in places if place.is_dir() for file in sorted(place.glob("*.json")) if looks_like_coco(file)
    ]
    instances = [file for file in found if file.name.startswith("instances")]
    return instances or found


def _folders(file: Path, images: Path | None) -> list[Path]:
    """Where the pictures of a file may lie, the likeliest first."""
    if images is not None:
        if not images.is_dir():
            raise DatasetError(f"There is no folder {images}.")
        return [images]
    split, above = split_of_file(file), file.parent.parent
    named = [one for one in sorted(above.iterdir()) if one.is_dir() and split and one.name.lower().startswith(split)]
    inner = [place / "images" / split for place in (file.parent, above) if split]
    candidates = [file.parent, file.parent / "images", *inner, *named, above / "images", above]
    if file.parent.name != "annotations":  # a folder of its own: nothing above belongs to it
        candidates = [file.parent, file.parent / "images", *inner[:1], *([above] if split else [])]
    return list(dict.fromkeys(place for place in candidates if place.is_dir()))


def _find(name: str, folders: list[Path]) -> Path | None:
    """A picture by its name in the file, which leads nowhere else; the folder that had it is tried first next time."""
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\x00" in name:
        return None
    for place in folders:
        if (place / relative).is_file():
            folders.remove(place)
            folders.insert(0, place)
            return place / relative
    return None
