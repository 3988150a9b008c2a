"""A small SQLite file that several processes and threads share."""

from __future__ import annotations

import fcntl
import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)
BEGUN_ANEW = 1
"""``user_version`` of a file that took the place of a damaged one."""


def open_shared(
    path: Path, schema: str, migrate: Callable[[sqlite3.Connection], None] = lambda database: None
) -> sqlite3.Connection:
    """Open a file, made with its folder where it is not there, for use from any thread under a lock of the caller's.

    A file that is no database any more is put aside under a name with ``damaged``, never deleted, and a new one begun:
    what it had can be read from Label Studio again, or mended by hand, and nobody waits for that.

    Args:
        path: of the file.
        schema: statements that make what is missing.
        migrate: brings a file of an earlier version up to date; no other process opens it meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as alone:  # SQLite waits for no other process in its first pragma
        fcntl.flock(alone, fcntl.LOCK_EX)
        try:
            return _opened(path, schema, migrate)
        except sqlite3.OperationalError:  # it is locked, or the disk full: nothing that a new one would mend
            raise
        except sqlite3.DatabaseError as error:
            log.error("%s is damaged (%s); it is kept as %s, and a new one begun", path, error, _put_aside(path).name)
            database = _opened(path, schema, migrate)
            database.execute(f"PRAGMA user_version = {BEGUN_ANEW}")
            return database


def begun_anew(database: sqlite3.Connection) -> bool:
    """Whether the file took the place of a damaged one, so that it may lack what was in that."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    return bool(version == BEGUN_ANEW)


def _opened(path: Path, schema: str, migrate: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
    database = sqlite3.connect(path, check_same_thread=False, timeout=30)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.executescript(schema)
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        migrate(database)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _put_aside(path: Path) -> Path:
    """Rename a file with its journal, and return the new name."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    for ending in ("", "-wal", "-shm"):
        part = path.with_name(path.name + ending)
        if part.exists():
            part.rename(aside.with_name(aside.name + ending))
    return aside
