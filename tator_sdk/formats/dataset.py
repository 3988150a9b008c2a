"""What every format reads and writes: pictures, each with the shapes that stand on it.

All coordinates are pixels of the picture as a person sees it, EXIF rotation applied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tator_sdk.errors import TatorError
from tator_sdk.geometry import Outline as Outline
from tator_sdk.geometry import Ring as Ring
from tator_sdk.geometry import RotatedBox, Xyxy


class DatasetError(TatorError):
    """A data set that cannot be used at all; the message says what is missing."""


Shape = Xyxy | RotatedBox | Outline


def enclosing_xyxy(shape: Shape) -> Xyxy:
    """The upright box around a shape, in pixels."""
    return shape if isinstance(shape, tuple) else shape.enclosing_xyxy()


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
    """A line that was left out, and why.

    Attributes:
        file: it stands in.
        number: of the line, from 1; in a JSON file that of the entry in its list; 0 where it is the whole file.
        reason: in words that end the sentence ``file:number: …``.
    """

    file: Path
    number: int
    reason: str

    def __str__(self) -> str:
        """``file:number: reason``, without the number where it is the whole file; printable whatever the name is."""
        file = str(self.file).encode("utf-8", "replace").decode()
        return f"{file}:{self.number}: {self.reason}" if self.number else f"{file}: {self.reason}"


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
        kind: ``detect``, ``segment``, ``obb``, ``coco``, or ``auto`` where each line decides for itself.
        notes: what was decided or noticed on opening, in sentences.
    """

    classes: tuple[str, ...]
    kind: str
    notes: tuple[str, ...]

    def __len__(self) -> int:
        """How many pictures there are."""

    def pictures(self) -> Iterator[LabelledPicture]:
        """Each of them, in an order that is the same every time; one that cannot be read is among the strays."""

    def strays(self) -> Iterator[BadLine]:
        """What belongs to no picture, and pictures that cannot be read: complete once ``pictures()`` is through."""

    def close(self) -> None:
        """Give back what it holds: a folder that an archive was unpacked to, an index. Files stay untouched."""
