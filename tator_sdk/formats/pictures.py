"""Picture files of a data set: which files are some, and how large they are, from their headers alone."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from tator_sdk.errors import TatorError

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
ORIENTATION = 0x0112
SIDEWAYS = frozenset({5, 6, 7, 8})


class PictureError(TatorError):
    """A file that is no picture, or a damaged one."""


def is_picture(name: str) -> bool:
    """Whether a file's name is that of a picture; what macOS leaves beside each file (``._a.jpg``) is none."""
    return os.path.splitext(name)[1].lower() in PICTURES and not name.startswith("._")  # noqa: PTH122


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels as a person sees the picture: EXIF rotation applied, no pixel decoded.

    Raises:
        PictureError: it cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large pictures and odd metadata are no reason to be loud here
            with Image.open(path) as image:
                # Pillow would decode a whole PNG to look for a tag behind its pixels
                known = image.format != "PNG" or "exif" in image.info
                sideways = known and image.getexif().get(ORIENTATION, 1) in SIDEWAYS
                return (image.height, image.width) if sideways else (image.width, image.height)
    except Image.DecompressionBombError as error:
        raise PictureError("the picture has more pixels than can be opened safely") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, TypeError, KeyError) as error:
        raise PictureError("the file is not a picture that can be read") from error


def walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders below one, itself first, each with the names of its files; in an order that is the same every time.

    Hidden folders and ``__MACOSX`` are left out; links to folders are followed, each real folder once.
    """
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        about = os.stat(place)  # noqa: PTH116
        if (about.st_dev, about.st_ino) in seen:
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        files.sort()
        yield Path(place), files
