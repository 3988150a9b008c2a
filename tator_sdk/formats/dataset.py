"""What every format reads and writes: pictures, each with the shapes that stand on it.

All coordinates are pixels of the picture as a person sees it, EXIF rotation applied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tator_sdk.geometry import Outline as Outline
from tator_sdk.geometry import Ring as Ring
from tator_sdk.geometry import Xyxy
from tator_sdk.regions import RotatedBox

Shape = Xyxy | RotatedBox | Outline


@dataclass(frozen=True, eq=False)
class LabelledShape:
    """One object of a picture.

    Attributes:
        label: name of its class.
        shape: where it is, in pixels.
        line: of the file it was read from, from 1; 0 where it has none.
    """

    label: str
    shape: Shape
    line: int = 0


@dataclass(frozen=True)
class BadLine:
    """A line that was left out, and why."""

    file: Path
    number: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.number}: {self.reason}"


@dataclass(frozen=True, eq=False)
class LabelledPicture:
    """A picture of a data set.

    Attributes:
        path: of its file.
        name: relative to the folder of the pictures, with ``/``; no two pictures of a data set share it.
        size_wh: width and height in pixels.
        shapes: what stands on it.
        split: ``train``, ``val``, ``test`` where the data set is split; else empty.
        bad: lines about it that could not be used.
    """

    path: Path
    name: str
    size_wh: tuple[int, int]
    shapes: tuple[LabelledShape, ...]
    split: str = ""
    bad: tuple[BadLine, ...] = ()


class DatasetReader(Protocol):
    """A data set in files, read a picture at a time.

    Attributes:
        classes: names, in the order of their indices.
    """

    classes: tuple[str, ...]

    def __len__(self) -> int:
        """How many pictures there are."""

    def pictures(self) -> Iterator[LabelledPicture]:
        """Each of them, in an order that is the same every time."""
