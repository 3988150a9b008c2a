"""Picture files on disk, named by the hash of their content."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import threading
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
        self._bytes = sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())

    def put(self, data: bytes) -> str:
        """Keep a file's bytes; returns their SHA-256 in hex."""
        name = hashlib.sha256(data).hexdigest()
        target = self._folder / name
        if target.exists() and target.read_bytes() == data:  # else damage of the disk would stay for good
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
            os.utime(self._folder / name)
        except FileNotFoundError:
            return None
        return data

    def __contains__(self, name: str) -> bool:
        return NAME.fullmatch(name) is not None and (self._folder / name).exists()

    def _prune(self, keep: str) -> None:
        files = []
        for entry in os.scandir(self._folder):
            try:
                files.append((entry.stat().st_mtime, entry.stat().st_size, entry.path, entry.name))
            except FileNotFoundError:
                continue
        total = sum(size for _, size, _, _ in files)
        for _, size, path, name in sorted(files):
            if total <= 0.9 * self._max_bytes:
                break
            if name != keep:
                Path(path).unlink(missing_ok=True)
                total -= size
        self._bytes = total
