"""Picture files on disk, named by the hash of their content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

NAME = re.compile(r"[0-9a-f]{64}")


class ImageStore:
    """A folder of picture files; bounded, safe to prune by hand, shared by processes.

    Writes are atomic: a file has its name only when it is complete.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._bytes = sum(size for _, size, _ in self._files())

    def put(self, data: bytes) -> str:
        """Keep a file's bytes; returns their SHA-256 in hex."""
        name = hashlib.sha256(data).hexdigest()
        target = self._folder / name
        with contextlib.suppress(FileNotFoundError):  # new, or pruned by another process at this moment
            if target.read_bytes() == data:  # else damage of the disk would stay for good
                os.utime(target)
                return name
        handle, partial = tempfile.mkstemp(dir=self._folder, prefix=".")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(partial).replace(target)
        except OSError:  # a full disk: half a file must not take the rest of it
            Path(partial).unlink(missing_ok=True)
            raise
        with self._lock:
            self._bytes += len(data)
            if self._bytes > self._max_bytes:
                self._prune(keep=name)
        return name

    def get(self, name: str) -> bytes | None:
        """The bytes of a hash, or None when they are not here."""
        if not NAME.fullmatch(name):
            return None
        try:
            data = (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        with contextlib.suppress(FileNotFoundError):  # pruned since by another process; the bytes are good
            os.utime(self._folder / name)
        return data

    def __contains__(self, name: str) -> bool:
        return NAME.fullmatch(name) is not None and (self._folder / name).exists()

    def _files(self) -> Iterator[tuple[float, int, str]]:
        """When each file was last used, its bytes and its name; other processes write and prune meanwhile."""
        for entry in os.scandir(self._folder):
            try:
                about = entry.stat()
            except FileNotFoundError:
                continue
            if entry.is_file():
                yield about.st_mtime, about.st_size, entry.name

    def _prune(self, keep: str) -> None:
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        for _, size, name in files:
            if total <= 0.9 * self._max_bytes:
                break
            if name != keep:
                (self._folder / name).unlink(missing_ok=True)
                total -= size
        self._bytes = total
