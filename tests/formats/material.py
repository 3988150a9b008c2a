"""Data sets of a few small pictures, written by hand."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tator_sdk.formats.dataset import LabelledPicture, Outline, Shape
from tator_sdk.geometry import RotatedBox

SIZE_WH = (200, 100)
LINE = "0 0.5 0.5 0.2 0.4"
NAMES = "Car\nVan\nBus\n"


def picture(size_wh: tuple[int, int] = SIZE_WH, kind: str = "PNG", turned: int = 0) -> bytes:
    """A picture file's bytes; ``turned`` is an EXIF orientation."""
    stream = io.BytesIO()
    exif = Image.Exif()
    if turned:
        exif[0x0112] = turned
    Image.new("RGB", size_wh, "teal").save(stream, kind, exif=exif)
    return stream.getvalue()


def folder(root: Path, files: dict[str, str | bytes]) -> Path:
    """Write files; a picture whose content is empty gets a real one of `SIZE_WH`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else content.encode()
        if not data and path.suffix in {".png", ".jpg"}:
            data = picture(kind="PNG" if path.suffix == ".png" else "JPEG")
        path.write_bytes(data)
    return root


def corners(shape: Shape) -> np.ndarray:
    """(N, 2) corner points of any shape, in pixels."""
    if isinstance(shape, Outline):
        return np.concatenate([*shape.parts, *shape.holes])
    if isinstance(shape, RotatedBox):
        return shape.corners()
    x0, y0, x1, y1 = shape
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def same_ring(one: np.ndarray, other: np.ndarray, within: float = 0.5) -> bool:
    """Whether two rings have the same corners, from whichever they begin and whichever way they run."""
    if len(one) != len(other):
        return False
    for way in (other, other[::-1]):
        for start in range(len(way)):
            if np.abs(np.roll(way, -start, axis=0) - one).max() <= within:
                return True
    return False


def same_shape(one: Shape, other: Shape, within: float = 0.5) -> bool:
    """Whether two shapes are the same within so many pixels."""
    if isinstance(one, Outline) and isinstance(other, Outline):
        return _same_rings(one.parts, other.parts, within) and _same_rings(one.holes, other.holes, within)
    return same_ring(corners(one), corners(other), within)


def _same_rings(some: tuple[np.ndarray, ...], others: tuple[np.ndarray, ...], within: float) -> bool:
    left = list(others)
    for ring in some:
        found = next((place for place, other in enumerate(left) if same_ring(ring, other, within)), None)
        if found is None:
            return False
        left.pop(found)
    return not left


def by_name(pictures: list[LabelledPicture]) -> dict[str, LabelledPicture]:
    return {one.name: one for one in pictures}
