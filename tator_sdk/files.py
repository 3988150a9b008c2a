"""Files that survive a kill: whole or not at all, and written by one process at a time."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tator_sdk.errors import TatorError


def write_durably(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write a file so that, after a kill or a loss of power, it is there as it was or as it is now.

    Args:
        path: of the file; its folder is made where it is not there.
        content: all of it.
        private: whether its owner alone may read it, whatever the umask says.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # a name of its own for each writer: threads of one process would share a process's number
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        # not by tempfile, whose files are their owner's alone always
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:  # of a full disk half a file must not take the rest
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """Write JSON values, as people read them too, by :func:`write_durably`."""
    write_durably(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def private_folder(path: Path) -> None:
    """Make a folder that its owner alone may enter; one that is there stays as it was made."""
    if not path.exists():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)  # whatever the umask says


@contextmanager
def alone(path: Path, busy: str, patience_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock beside a file; it is given back whatever ends the process.

    Args:
        path: of the file, which need not be there.
        busy: what is said where another process holds it.
        patience_seconds: how long to wait for that one.

    Raises:
        TatorError: another process holds it; the message is ``busy``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock", timeout=patience_seconds)
    try:
        lock.acquire()
    except Timeout as error:
        raise TatorError(busy) from error
    try:
        yield
    finally:
        lock.release()
