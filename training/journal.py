"""Files of a job, a JSON value a line, that a crash at any moment leaves readable."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any


class Journal:
    """A file to append to. What an earlier attempt wrote is kept; the half line of its crash is cut off."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        self._file.truncate(_whole(path))
        self._file.seek(0, os.SEEK_END)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, value: object, safely: bool = False) -> None:
        """Add a line.

        Args:
            value: that JSON can hold.
            safely: have it on the disk, not only with the system, when this returns.
        """
        self._file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        if safely:
            os.fsync(self._file.fileno())


def lines_of(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The whole lines of a journal, each with the place where it begins; none where there is no file."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        offset = 0
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield offset, json.loads(line)
            offset += len(line)


def line_at(path: Path, offset: int) -> dict[str, Any]:
    """The line that begins there."""
    with path.open("rb") as file:
        file.seek(offset)
        return dict(json.loads(file.readline()))


def _whole(path: Path) -> int:
    """Bytes up to the end of the last whole line."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            begin = max(0, end - 65536)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            end = begin
    return 0
