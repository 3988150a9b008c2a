"""Bytes of a picture → pixels as the browser shows them."""

from __future__ import annotations

import io
import threading
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from tator_sdk.errors import TatorError

ORIENTATION = 0x0112
_RAISING = threading.Lock()
# what is large is told by our own limit, once its size is known; to silence it for one call is for one thread only
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class ImageError(TatorError):
    """A picture that cannot be fetched or decoded; the message is for the annotator."""


def decode_image(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Decode a picture.

    EXIF rotation is applied; sixteen-bit values lose their low byte, transparency goes onto white
    and palettes, CMYK and grey become RGB, all as browsers do.

    Args:
        data: the file's bytes in any format Pillow reads.
        max_pixels: a larger picture is refused before its pixels are decoded.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageError: empty, damaged, not a picture, or above the limit.
    """
    image = _open(data, max_pixels)
    try:
        if _is_turned(image):
            image = ImageOps.exif_transpose(image)
        return np.asarray(_rgb(image))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"The picture is damaged and cannot be decoded ({_short(error)}).") from error


def decode_grey(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Decode a picture (H, W) as grey, not turned and whatever its transparency, as masks are kept.

    Raises:
        ImageError: as :func:`decode_image`.
    """
    try:
        return np.asarray(_open(data, max_pixels).convert("L"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"The picture is damaged and cannot be decoded ({_short(error)}).") from error


def thumbnail(data: bytes, max_pixels: int, side: int) -> bytes:
    """A small JPEG of a picture, turned as browsers show it.

    Args:
        data: the file's bytes.
        max_pixels: as of :func:`decode_image`.
        side: of the result, at most, in pixels.

    Raises:
        ImageError: as :func:`decode_image`.
    """
    image = _open(data, max_pixels)
    try:
        turned = _is_turned(image)
        image.draft("RGB", (side, side))  # a JPEG is decoded at a fraction of its size
        image.thumbnail((side, side))
        small = _rgb(ImageOps.exif_transpose(image) if turned else image)
        made = io.BytesIO()
        small.save(made, "JPEG", quality=80)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"The picture is damaged and cannot be decoded ({_short(error)}).") from error
    return made.getvalue()


def image_size(data: bytes, max_pixels: int) -> tuple[int, int]:
    """Width and height after EXIF rotation, read from the header alone.

    Raises:
        ImageError: as :func:`decode_image`, as far as the header shows it.
    """
    return _size(_open(data, max_pixels))


def image_suffix(data: bytes, max_pixels: int) -> str:
    """Suffix that goes with a picture's format, such as ``.jpg``.

    Raises:
        ImageError: as :func:`image_size`.
    """
    name = (_open(data, max_pixels).format or "png").lower()
    return {"jpeg": ".jpg", "mpo": ".jpg"}.get(name, f".{name}")


def file_size_wh(path: Path) -> tuple[int, int]:
    """Width and height of a picture file in pixels after EXIF rotation; only its header is read.

    Raises:
        ImageError: it is not there, or no picture.
    """
    try:
        image = _header(path)
    except Image.DecompressionBombError as error:
        raise ImageError(f"The picture is too large ({_short(error)}).") from error
    with image:
        try:
            return _size(image)
        except (OSError, ValueError, SyntaxError, TypeError, KeyError) as error:  # an EXIF block of rubbish
            raise ImageError("The file is not a picture that can be read.") from error


def _size(image: Image.Image) -> tuple[int, int]:
    sideways = _is_turned(image) and image.getexif().get(ORIENTATION) in {5, 6, 7, 8}
    return (image.height, image.width) if sideways else (image.width, image.height)


def _is_turned(image: Image.Image) -> bool:
    """Whether the header asks for a rotation or reflection; never decodes pixels."""
    if image.format == "PNG" and "exif" not in image.info:
        return False  # Pillow would decode the whole picture to look for a tag behind it
    return image.getexif().get(ORIENTATION, 1) in range(2, 9)


def _open(source: bytes | Path, max_pixels: int) -> Image.Image:
    # Pillow has one limit for the whole process, for what lies within a file too, such as the frames of an icon, and
    # refuses twice as much. It is raised to what was asked for and stays so: other threads are opening pictures, too.
    with _RAISING:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, -(-max_pixels // 2))
    try:
        image = _header(source)
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"The picture has more pixels than the {max_pixels} allowed; raise TATOR_IMAGE_MAX_PIXELS."
        ) from error
    if image.width * image.height > max_pixels:
        raise ImageError(
            f"The picture has {image.width} x {image.height} pixels, more than the {max_pixels} allowed; "
            "raise TATOR_IMAGE_MAX_PIXELS."
        )
    return image


def _header(source: bytes | Path) -> Image.Image:
    """The picture with nothing decoded.

    Raises:
        ImageError: it is none.
        Image.DecompressionBombError: it is above Pillow's own limit.
    """
    if source == b"":
        raise ImageError("The picture's file is empty.")
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise ImageError("The file is not a picture that can be read.") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "I":  # sixteen-bit PNGs open in this mode in some versions of Pillow
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(np.asarray(image).clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")


def _short(error: BaseException) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
