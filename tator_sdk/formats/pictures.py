"""Picture files of a data set: which files are some, and where they lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


def is_picture(name: str) -> bool:
    """Whether a file's name is that of a picture; what macOS leaves beside each file (``._a.jpg``) is none."""
    return os.path.splitext(name)[1].lower() in PICTURES and not name.startswith("._")  # noqa: PTH122


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
