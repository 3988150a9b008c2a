"""A small SQLite file that several processes and threads share."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Callable
from pathlib import Path


def open_shared(
    path: Path, schema: str, migrate: Callable[[sqlite3.Connection], None] = lambda database: None
) -> sqlite3.Connection:
    """Open a file, made with its folder where it is not there, for use from any thread under a lock of the caller's.

    Args:
        path: of the file.
        schema: statements that make what is missing.
        migrate: brings a file of an earlier version up to date; no other process opens it meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, check_same_thread=False, timeout=30)
    with path.with_suffix(".lock").open("w") as alone:  # SQLite waits for no other process in this pragma
        fcntl.flock(alone, fcntl.LOCK_EX)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.executescript(schema)
        migrate(database)
    return database
