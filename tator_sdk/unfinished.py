"""Folders that are being filled: they get their name when they are complete, and nothing of them stays otherwise."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"


@contextmanager
def unfinished(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder, removed at the end unless it was renamed; also those go that a killed process left there.

    Whose process lives is told by a lock beside the folder, which ends with its process, however that ends.

    Args:
        parent: of the folder; made where it is not there.
        prefix: of its name, and of what earlier ones may have left; begins with a dot.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{prefix}*{LOCK}"):
        _clear(left)
    folder = parent / f"{prefix}{secrets.token_hex(4)}"
    with FileLock(f"{folder}{LOCK}"):
        try:
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            Path(f"{folder}{LOCK}").unlink(missing_ok=True)


def _clear(left: Path) -> None:
    lock = FileLock(left, timeout=0)
    try:
        lock.acquire()
    except Timeout:  # its process lives
        return
    try:
        shutil.rmtree(left.with_name(left.name.removesuffix(LOCK)), ignore_errors=True)
        left.unlink(missing_ok=True)
    finally:
        lock.release()
