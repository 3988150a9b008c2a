"""What a model learns from: pictures with the objects on them, and which of them are held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tator_sdk.errors import TatorError
from tator_sdk.formats.dataset import Shape, enclosing_xyxy
from tator_sdk.geometry import Outline, Xyxy, painting_order
from tator_sdk.held_out import held_out_share
from tator_sdk.images import ImageError

Xy = tuple[float, float]


class NothingToLearn(TatorError):
    """There are too few examples; the message says what to label."""


@dataclass(frozen=True)
class Labelled:
    """One object, in pixels of its picture: upright box, a point that lies on it, and its outline where it has one."""

    label: str
    box: Xyxy
    point: Xy
    outline: Outline | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Sample:
    """A picture with everything on it.

    Attributes:
        image: its content hash, or another name that no other picture of the data set has.
        read: its pixels, (H, W, 3) uint8 RGB, as a person sees them.
        size_wh: of those, in pixels.
        objects: on it; none where there is nothing to find.
        origin: where ``read`` finds it, as JSON values.
    """

    image: str
    read: Callable[[], NDArray[np.uint8]] = field(hash=False, compare=False)
    size_wh: tuple[int, int]
    objects: tuple[Labelled, ...]
    origin: dict[str, Any] = field(default_factory=dict, hash=False, compare=False)


@dataclass(frozen=True)
class Samples:
    """A data set, split.

    Attributes:
        train: pictures to learn from.
        held_out: pictures to measure on.
        classes: names, in the order of the configuration or the label map.
        source: where it came from, in words.
        notes: what was left out, in sentences.
        names: other names of classes in models' vocabularies, as the configuration has them (``predicted_values``).
    """

    train: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    classes: tuple[str, ...]
    source: str
    notes: tuple[str, ...] = ()
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def outlined(self) -> bool:
        """Whether most objects to learn from have an outline."""
        objects = [one for sample in self.train for one in sample.objects]
        return 2 * sum(one.outline is not None for one in objects) > len(objects)


def split(
    samples: Sequence[Sample], classes: Sequence[str], share: float, seed: int, source: str, notes: Sequence[str] = ()
) -> Samples:
    """Hold pictures out by their content, the same ones for every run with the seed.

    Where none of several would be held out, or all, the one nearest the border changes sides.

    Raises:
        NothingToLearn: there are fewer than two pictures, or no object.
    """
    objects = sum(len(sample.objects) for sample in samples)
    if len(samples) < 2 or not objects:
        raise NothingToLearn(
            f"There are {objects} labelled objects in {len(samples)} pictures, too few to learn from and to measure "
            "on; label more pictures and train again."
        )
    ordered = sorted(samples, key=lambda sample: (held_out_share(sample.image, seed), sample.image))
    border = sum(held_out_share(sample.image, seed) < share for sample in ordered)
    border = min(max(border, 1), len(ordered) - 1)
    return Samples(tuple(ordered[border:]), tuple(ordered[:border]), tuple(classes), source, tuple(notes))


def readable(samples: Sequence[Sample], most: int, log: Callable[[str], None]) -> tuple[Sample, ...]:
    """The first so many pictures that can be read; what cannot is told, and stops nothing."""
    found: list[Sample] = []
    for sample in samples:
        if len(found) == most:
            break
        try:
            sample.read()
            found.append(sample)
        except ImageError as error:
            log(f"left out: {error}")
    return tuple(found)


def labelled(label: str, shape: Shape) -> Labelled:
    """An object of a shape; the point is the middle of a box, and of an outline the one deepest inside."""
    box = enclosing_xyxy(shape)
    point = _deepest(shape, box) if isinstance(shape, Outline) else ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    return Labelled(label, box, point, shape if isinstance(shape, Outline) else None)


_RASTER = 128  # cells of the longer side on which the deepest point is looked for


def _deepest(outline: Outline, box: Xyxy) -> Xy:
    longer = max(box[2] - box[0], box[3] - box[1], 1e-6)
    scale, origin = _RASTER / longer, np.array(box[:2])
    # nothing on all four sides, where OpenCV takes corners at 0 to 128 for 129 cells: depth is counted from there, too
    cells = np.zeros((_RASTER + 3, _RASTER + 3), np.uint8)
    for ring, filled in painting_order(outline):
        cv2.fillPoly(cells, [np.round((ring - origin) * scale + 1).astype(np.int32)], int(filled))
    depth = cv2.distanceTransform(cells, cv2.DIST_L2, 5)
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    x, y = (float(origin[0] + (column - 1) / scale), float(origin[1] + (row - 1) / scale))
    return min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])
