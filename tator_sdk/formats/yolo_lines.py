"""One line of a YOLO label file ↔ a shape in pixels.

A line is ``class cx cy w h`` in shares of the picture (https://docs.ultralytics.com/datasets/detect), a polygon
``class x1 y1 x2 y2 …`` (datasets/segment), or an oriented box ``class x1 y1 x2 y2 x3 y3 x4 y4`` (datasets/obb). The
last two look alike, so what four points mean is never guessed: it is the data set's kind that says it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tator_sdk.formats.dataset import BadLine, LabelledShape, Shape, enclosing_xyxy
from tator_sdk.formats.oriented import rotated_box, within_picture
from tator_sdk.formats.rings import split_ring

SLACK = 0.01  # of the picture, that a box or a polygon may reach out of it before it is a mistake
ORIENTED_SLACK = 1.0  # an oriented box at the border has corners far outside
LONGEST_LINE = 8 * 2**20
PIXELS = "coordinates outside 0..1: are they pixels?"


def read_lines(
    file: Path, kind: str, classes: Sequence[str], size_wh: tuple[int, int]
) -> tuple[tuple[LabelledShape, ...], tuple[BadLine, ...]]:
    """The shapes of a label file, and the lines of it that could not be used.

    Args:
        file: of the labels.
        kind: ``detect``, ``segment``, ``obb``, or ``auto``.
        classes: names, in the order of their indices.
        size_wh: of the picture, pixels.

    Raises:
        OSError: the file cannot be opened.
    """
    shapes, bad = [], []
    for number, text in numbered_lines(file):
        try:
            shapes.append(read_line(text, number, kind, classes, size_wh))
        except ValueError as error:
            bad.append(BadLine(file, number, str(error)))
    return tuple(shapes), tuple(bad)


def numbered_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not empty, with their numbers from 1; bytes that are not UTF-8 are replaced."""
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        number = 0
        while text := lines.readline(LONGEST_LINE):
            number += 1
            if text.strip():
                yield number, text


def read_line(text: str, number: int, kind: str, classes: Sequence[str], size_wh: tuple[int, int]) -> LabelledShape:
    """One line → a shape in pixels.

    Raises:
        ValueError: it cannot be used; the message says why.
    """
    index, values = _numbers(text, len(classes))
    return LabelledShape(classes[index], _shape(values, kind, size_wh), number)


def write_line(index: int, values: Sequence[float]) -> str:
    """A line: the class's index, and shares of the picture with six decimals."""
    return " ".join([str(index), *(f"{value:.6f}" for value in values)])


def _numbers(text: str, classes: int) -> tuple[int, list[float]]:
    words = text.split()
    try:
        values = [float(word) for word in words]
    except ValueError:
        if "\x00" in text or "\ufffd" in text:
            raise ValueError("not text in UTF-8; save the file as such") from None
        raise ValueError(f"not a row of numbers: {text.strip()[:60]!r}") from None
    if not all(math.isfinite(value) for value in values):
        raise ValueError("a number that is not finite")
    if not values:
        raise ValueError("an empty line")
    index = int(values[0])
    if index != values[0] or not 0 <= index < classes:
        raise ValueError(f"class {words[0]} is not among the {classes} that are named")
    return index, values[1:]


def _shape(values: list[float], kind: str, size_wh: tuple[int, int]) -> Shape:
    if len(values) == 4:
        return _box(values, size_wh)
    if len(values) == 8 and kind == "obb":
        points = np.array(values).reshape(-1, 2)
        _refuse_pixels(points, ORIENTED_SLACK)
        return within_picture(rotated_box(points * np.array(size_wh, np.float64)), size_wh)
    if len(values) >= 6 and len(values) % 2 == 0 and kind != "obb":
        points = np.array(values).reshape(-1, 2)
        _refuse_pixels(points, SLACK)
        ring = points.clip(0, 1) * np.array(size_wh, np.float64)
        if np.array_equal(ring[0], ring[-1]) and len(ring) > 3:
            ring = ring[:-1]
        if float(np.ptp(ring, axis=0).min()) <= 0:
            raise ValueError("the polygon has no area")
        outline = split_ring(ring)
        return enclosing_xyxy(outline) if kind == "detect" else outline
    if kind == "obb":
        raise ValueError(f"{len(values)} numbers after the class: an oriented box has 8, an upright one 4")
    raise ValueError(f"{len(values)} numbers after the class: a box has 4, a polygon 6 or more in pairs")


def _box(values: list[float], size_wh: tuple[int, int]) -> Shape:
    # plain numbers: numpy takes fifty microseconds longer, which is most of the time that a box takes
    cx, cy, width, height = values
    x0, y0, x1, y1 = cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2
    if min(x0, y0, x1, y1) < -SLACK or max(x0, y0, x1, y1) > 1 + SLACK:
        raise ValueError(PIXELS)
    x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in (x0, y0, x1, y1))
    if x1 <= x0 or y1 <= y0:
        raise ValueError("the box has no area")
    return x0 * size_wh[0], y0 * size_wh[1], x1 * size_wh[0], y1 * size_wh[1]


def _refuse_pixels(points: NDArray[np.float64], slack: float) -> None:
    if points.min() < -slack or points.max() > 1 + slack:
        raise ValueError(PIXELS)
