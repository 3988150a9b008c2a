"""A folder as a zip that is sent while it is made, so that it needs neither memory nor disk."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path

STORED = frozenset({".jpg", ".jpeg", ".png", ".webp", ".zip", ".safetensors"})  # they do not compress
CHUNK_BYTES = 1 << 20


class _Outbox:
    """What a zip was written to since it was last emptied; cannot be sought in."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def empty(self) -> bytes:
        sent, self._parts = b"".join(self._parts), []
        return sent


def zipped(folder: Path, without: Collection[str] = ()) -> Iterator[bytes]:
    """The files of a folder as a zip, in pieces; links are left out, as they may lead anywhere.

    Args:
        folder: to be packed.
        without: names of files that stay here.
    """
    outbox = _Outbox()
    with zipfile.ZipFile(outbox, "w", allowZip64=True) as archive:  # type: ignore[call-overload]
        for path, name in files_of(folder):
            if path.name in without:
                continue
            about = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
            about.compress_type = zipfile.ZIP_STORED if path.suffix.lower() in STORED else zipfile.ZIP_DEFLATED
            with path.open("rb") as source, archive.open(about, "w", force_zip64=True) as target:
                while chunk := source.read(CHUNK_BYTES):
                    target.write(chunk)
                    yield outbox.empty()
    yield outbox.empty()


def files_of(folder: Path) -> Iterator[tuple[Path, str]]:
    """Files below a folder with their names in it, hidden ones left out."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(place) / name
            if path.is_file() and not path.is_symlink() and not name.startswith("."):
                yield path, path.relative_to(folder).as_posix()
