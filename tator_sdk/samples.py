"""Some pictures of a data set, made small, each with its shapes as a page draws them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tator_sdk.formats.dataset import LabelledPicture, LabelledShape, Outline
from tator_sdk.geometry import Ring, RotatedBox
from tator_sdk.images import ImageError, decode_image

SIDE = 480  # pixels, of the longer one
MOST_PASSED = 200  # pictures without shapes that are passed over to find some with
MOST_SHAPES, MOST_POINTS = 200, 400
QUALITY = 85


@dataclass(frozen=True)
class Drawing:
    """A shape on a sample.

    Attributes:
        label: its class.
        rings: outlines, each as ``x,y x,y …`` in the sample's pixels.
    """

    label: str
    rings: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """A picture of a data set, made small.

    Attributes:
        file: its name in the samples' folder.
        name: of the picture in the data set.
        split: ``train``, ``val``, ``test``, or empty.
        width, height: of the sample, in pixels.
        shapes: what stands on it.
        more: shapes that are not among them.
    """

    file: str
    name: str
    split: str
    width: int
    height: int
    shapes: tuple[Drawing, ...]
    more: int = 0

    @classmethod
    def of_json(cls, given: dict[str, Any]) -> Sample:
        """From JSON values."""
        shapes = tuple(Drawing(one["label"], tuple(one["rings"])) for one in given["shapes"])
        return cls(**{**given, "shapes": shapes})

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


class Sampler:
    """Takes the first pictures that have shapes, while somebody goes through all.

    Attributes:
        samples: so far.
    """

    def __init__(self, folder: Path, most: int = 12, max_pixels: int = 100_000_000) -> None:
        """``folder`` takes the files; larger pictures than ``max_pixels`` are passed over."""
        folder.mkdir(parents=True, exist_ok=True)
        self.samples: list[Sample] = []
        self._folder, self._most, self._max_pixels = folder, most, max_pixels
        self._bare: list[LabelledPicture] = []

    def see(self, picture: LabelledPicture) -> bool:
        """Take a picture, if more are wanted and it has shapes; returns whether more are wanted."""
        if len(self.samples) < self._most:
            if picture.shapes:
                self._take(picture)
            elif len(self._bare) < self._most:
                self._bare.append(picture)
        return len(self.samples) < self._most

    def fill(self) -> None:
        """Where too few have shapes, take pictures without."""
        for picture in self._bare[: self._most - len(self.samples)]:
            self._take(picture)

    def see_some(self, pictures: Iterable[LabelledPicture]) -> None:
        """Go through a data set's pictures until there are enough samples."""
        for passed, picture in enumerate(pictures):
            if not self.see(picture) or passed >= MOST_PASSED:
                break
        self.fill()

    def _take(self, picture: LabelledPicture) -> None:
        try:
            small = Image.fromarray(decode_image(picture.path.read_bytes(), self._max_pixels))
        except (ImageError, OSError):
            return
        width, height = small.size
        small.thumbnail((SIDE, SIDE))
        scale = small.width / width, small.height / height
        file = f"{len(self.samples)}.jpg"
        small.save(self._folder / file, quality=QUALITY)
        drawn = tuple(_drawn(one, scale) for one in picture.shapes[:MOST_SHAPES])
        more = max(0, len(picture.shapes) - MOST_SHAPES)
        self.samples.append(Sample(file, picture.name, picture.split, small.width, small.height, drawn, more))


def _drawn(one: LabelledShape, scale: tuple[float, float]) -> Drawing:
    return Drawing(one.label, tuple(_points(ring, scale) for ring in _rings(one)))


def _rings(one: LabelledShape) -> list[Ring]:
    shape = one.shape
    if isinstance(shape, RotatedBox):
        return [shape.corners()]
    if isinstance(shape, Outline):
        return [*shape.parts, *shape.holes]
    x0, y0, x1, y1 = shape
    return [np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])]


def _points(ring: Ring, scale: tuple[float, float]) -> str:
    step = max(1, -(-len(ring) // MOST_POINTS))
    return " ".join(f"{x * scale[0]:.1f},{y * scale[1]:.1f}" for x, y in ring[::step].tolist())
