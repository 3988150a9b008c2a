"""The crop recipe: how the surroundings of a box become what a class encoder sees.

Training and serving both call ``crop``, so a head is asked about what it was trained on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tator_sdk.geometry import Xyxy, clip_xyxy

Image = NDArray[np.uint8]

# CLIP's mean colour (open_clip.constants.OPENAI_DATASET_MEAN x 255): its normalisation turns the
# fill into zeros, and it costs no pass over the picture, as the picture's own mean would.
FILL_RGB = (123, 117, 104)


@dataclass(frozen=True)
class CropRecipe:
    """How boxes are cropped; a head keeps the recipe that it was trained with.

    Attributes:
        margin: free space on each side as a share of the box's longer side, 0 to 1; a square
            crop only.
        square: True shows the square around the box with what else is in it; False shows the
            box alone.
    """

    margin: float = 0.08
    square: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 1:
            raise ValueError(f"A crop's margin is between 0 and 1, not {self.margin}.")

    @property
    def key(self) -> str:
        """Short name for cache keys; recipes that give the same crops share it."""
        return f"square-{self.margin:g}" if self.square else "exact"

    def crop(self, image: Image, xyxy: Xyxy, size: int) -> Image:
        """``crop`` with this recipe's margin and form."""
        return crop(image, xyxy, size, self.margin, self.square)


def crop(image: Image, xyxy: Xyxy, size: int, margin: float = 0.08, square: bool = True) -> Image:
    """Cut the surroundings of a box out of a picture, as a square picture of fixed size.

    The window is a square centred on the box, its side the box's longer side plus ``margin`` on
    both ends (none for an exact crop), so the object is never stretched and no end of a long
    one is lost. What the window shows beyond the picture (for an exact crop: beyond the box) is
    ``FILL_RGB``. Cutting precedes scaling, so memory does not grow with the window.

    Args:
        image: (H, W, 3) uint8 RGB.
        xyxy: the box in pixels; clipped to the picture and to at least one whole pixel of it.
        size: side of the answer in pixels, at least 1.
        margin: share of the longer side left free around the box; ignored for an exact crop.
        square: False for the exact crop, which shows nothing but the box.

    Returns:
        (size, size, 3) uint8 RGB, contiguous, a copy.

    Raises:
        ValueError: the picture is not (H, W, 3) uint8 with pixels, or the box is not finite.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"A crop needs an (H, W, 3) uint8 picture, not {image.shape} {image.dtype}.")
    height, width = image.shape[:2]
    x0, y0, x1, y1 = _whole_pixels(xyxy, (width, height))
    longer = max(x1 - x0, y1 - y0)
    side = max(1, round(longer * (1 + 2 * margin))) if square else longer
    left, top = round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2)
    if square:
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + side, width), min(top + side, height)

    scale = size / side
    to_x0, to_x1 = _target(x0 - left, x1 - left, scale, size)
    to_y0, to_y1 = _target(y0 - top, y1 - top, scale, size)
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    result = np.empty((size, size, 3), np.uint8)
    result[:] = FILL_RGB
    result[to_y0:to_y1, to_x0:to_x1] = cv2.resize(
        image[y0:y1, x0:x1], (to_x1 - to_x0, to_y1 - to_y0), interpolation=way
    )
    return result


def _whole_pixels(xyxy: Xyxy, size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box rounded to pixels of the picture, each side at least 1."""
    if not all(math.isfinite(value) for value in xyxy):
        raise ValueError(f"A box has finite corners, not {xyxy}.")
    clipped = clip_xyxy(xyxy, size_wh)
    x0, y0 = min(round(clipped[0]), size_wh[0] - 1), min(round(clipped[1]), size_wh[1] - 1)
    return x0, y0, max(round(clipped[2]), x0 + 1), max(round(clipped[3]), y0 + 1)


def _target(start: int, stop: int, scale: float, size: int) -> tuple[int, int]:
    """Where a stretch of the window lies in the answer: whole pixels, at least one."""
    first = min(max(round(start * scale), 0), size - 1)
    return first, min(max(round(stop * scale), first + 1), size)
