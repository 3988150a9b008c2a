"""Cuttings of pictures around boxes, on which the page draws the boxes themselves."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from tator_sdk.images import decode_image

SIDE = 320  # pixels
MARGIN = 0.3  # of the longer side, around all boxes
FEWEST = 24.0  # pixels of the picture that a cutting shows at least
QUALITY = 85


@dataclass(frozen=True)
class Crop:
    """A square of a picture, shown at ``SIDE`` pixels.

    Attributes:
        left, top: of the square, in the picture's pixels; may lie outside of it.
        side: its length there.
    """

    left: float
    top: float
    side: float

    def placed(self, xyxy: Sequence[float]) -> tuple[float, float, float, float]:
        """A box as ``x, y, width, height`` on the cutting, in its pixels."""
        scale = SIDE / self.side
        x0, y0, x1, y1 = xyxy
        return (
            round((x0 - self.left) * scale, 1),
            round((y0 - self.top) * scale, 1),
            round((x1 - x0) * scale, 1),
            round((y1 - y0) * scale, 1),
        )


def crop_around(boxes: Sequence[Sequence[float]]) -> Crop:
    """The square around boxes (x0, y0, x1, y1), with a margin."""
    x0, y0 = (min(box[at] for box in boxes) for at in (0, 1))
    x1, y1 = (max(box[at] for box in boxes) for at in (2, 3))
    side = max(x1 - x0, y1 - y0, FEWEST) * (1 + 2 * MARGIN)
    return Crop((x0 + x1 - side) / 2, (y0 + y1 - side) / 2, side)


def cut(data: bytes, crop: Crop, max_pixels: int) -> bytes:
    """The cutting as a JPEG.

    Raises:
        ImageError: the picture cannot be decoded, or is too large.
    """
    picture = Image.fromarray(decode_image(data, max_pixels))
    square = (crop.left, crop.top, crop.left + crop.side, crop.top + crop.side)
    made = picture.transform((SIDE, SIDE), Image.Transform.EXTENT, square, Image.Resampling.BILINEAR)
    out = io.BytesIO()
    made.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
