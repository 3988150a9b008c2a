"""YOLO folders: pictures, one text file of boxes for each, and the classes' names.

A line is ``class cx cy w h`` in shares of the picture (https://docs.ultralytics.com/datasets/detect), or a
polygon ``class x1 y1 x2 y2 …``, of which the box around it is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tator_sdk.errors import TatorError
from tator_sdk.formats.dataset import BadLine
from tator_sdk.geometry import Xyxy

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
LABEL_MAPS = ("labelmap.txt", "classes.txt", "labels.txt", "data.yaml", "data.yml")


class YoloError(TatorError):
    """A folder that cannot be used at all; the message says what is missing."""


@dataclass(frozen=True)
class YoloLine:
    """One object: its class's index, and the box in shares of the picture's width and height."""

    index: int
    box: Xyxy
    number: int


@dataclass(frozen=True)
class YoloPicture:
    """A picture with its objects; ``bad`` are lines of its file that could not be used."""

    path: Path
    lines: tuple[YoloLine, ...]
    bad: tuple[BadLine, ...] = ()


def find_names(folder: Path, named: Path | None = None) -> list[str]:
    """Names of the classes, in the order of their indices.

    Args:
        folder: of the pictures; the file is looked for there, and up to two folders above.
        named: the file itself, where it was given.

    Raises:
        YoloError: no such file, or no names in it.
    """
    folders = (folder, folder.parent, folder.parent.parent)
    candidates = [named] if named else [place / name for place in folders for name in LABEL_MAPS]
    for path in candidates:
        if path.is_file():
            names = _yaml_names(path) if path.suffix in {".yaml", ".yml"} else _lines(path)
            if not names:
                raise YoloError(f"{path} names no classes.")
            return names
    if named:
        raise YoloError(f"There is no file {named} with the classes' names.")
    raise YoloError(f"No class names beside {folder}: put a {LABEL_MAPS[0]} there, one name a line.")


def read_folder(images: Path, labels: Path | None, classes: int) -> Iterator[YoloPicture]:
    """Pictures of a folder in order of their names, each with its objects; one without a file has none.

    Args:
        images: folder of the pictures, folders in it included.
        labels: folder of the text files, with the same folders in it; by default ``labels`` where the path says
            ``images``, else beside the pictures.
        classes: how many there are; an index beyond them is a bad line.

    Raises:
        YoloError: there is no such folder, or no picture in it.
    """
    if not images.is_dir():
        raise YoloError(f"There is no folder {images}.")
    if labels is not None and not labels.is_dir():
        raise YoloError(f"There is no folder {labels}.")
    paths = sorted(path for path in images.rglob("*") if path.suffix.lower() in PICTURES and path.is_file())
    if not paths:
        raise YoloError(f"There are no pictures in {images}.")
    for path in paths:
        file = _label_file(path, images, labels)
        if not file.is_file():
            yield YoloPicture(path, ())
            continue
        lines, bad = [], []
        for number, text in enumerate(file.read_text("utf-8-sig", "replace").splitlines(), 1):
            if not text.strip():
                continue
            try:
                lines.append(_parsed(text, number, classes))
            except ValueError as error:
                bad.append(BadLine(file, number, str(error)))
        yield YoloPicture(path, tuple(lines), tuple(bad))


def _label_file(path: Path, images: Path, labels: Path | None) -> Path:
    relative = path.relative_to(images).with_suffix(".txt")
    if labels is not None:
        return labels / relative
    parts = list(images.absolute().parts)
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        beside = Path(*parts[:last], "labels", *parts[last + 1 :])
        if beside.is_dir():
            return beside / relative
    return path.with_suffix(".txt")


def _parsed(text: str, number: int, classes: int) -> YoloLine:
    words = text.split()
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"not a row of numbers: {text[:60]!r}") from None
    if not all(math.isfinite(value) for value in values):
        raise ValueError("a number that is not finite")
    index = int(values[0])
    if index != values[0] or not 0 <= index < classes:
        raise ValueError(f"class {words[0]} is not among the {classes} that are named")
    rest = values[1:]
    if len(rest) == 4:
        cx, cy, width, height = rest
        box = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
    elif len(rest) >= 6 and len(rest) % 2 == 0:
        xs, ys = rest[0::2], rest[1::2]
        box = (min(xs), min(ys), max(xs), max(ys))
    else:
        raise ValueError(f"{len(rest)} numbers after the class: a box has 4, a polygon 6 or more in pairs")
    slack = 0.01
    if min(box) < -slack or max(box) > 1 + slack:
        raise ValueError("coordinates outside 0..1: are they pixels?")
    clipped = tuple(min(max(edge, 0.0), 1.0) for edge in box)
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        raise ValueError("the box has no area")
    return YoloLine(index, (clipped[0], clipped[1], clipped[2], clipped[3]), number)


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise YoloError(f"{path} is not UTF-8 text; save it as such.") from error


def _yaml_names(path: Path) -> list[str]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text("utf-8-sig"))
        names = content["names"]
        if isinstance(names, dict):  # indices may be written as text
            numbered = {int(index): name for index, name in names.items()}
            names = [numbered[index] for index in range(len(names))]  # a gap would move all that follow
        if not isinstance(names, list):
            raise TypeError("neither a list nor a mapping")
        return [str(name) for name in names]
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise YoloError(f"{path} has no readable `names`: a list, or a mapping from 0 on without a gap.") from error
