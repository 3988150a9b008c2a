"""Our own record of what was suggested: Label Studio does not keep interactive answers."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tator_sdk.regions import Region

SCHEMA = """
CREATE TABLE IF NOT EXISTS suggestions (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    project INTEGER,
    task INTEGER,
    prompt_ids TEXT NOT NULL,
    region_id TEXT NOT NULL,
    region TEXT NOT NULL,
    model_version TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS suggestions_by_region ON suggestions (project, task, region_id);
"""


class Suggestions:
    """A small SQLite file; one row for each suggested region."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.executescript(SCHEMA)

    def record(
        self,
        project: int | None,
        task: int | None,
        prompt_ids: Sequence[str],
        regions: Sequence[Region],
        model_version: str,
    ) -> None:
        """Keep what was answered; geometry without its bulky run lengths."""
        now = time.time()
        rows = [
            (now, project, task, json.dumps(list(prompt_ids)), str(one["id"]), _slim(one), model_version)
            for one in regions
        ]
        with self._lock, self._database:
            self._database.executemany(
                "INSERT INTO suggestions (at, project, task, prompt_ids, region_id, region, model_version) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

    def of_task(self, project: int, task: int) -> list[dict[str, object]]:
        """What was suggested on a task, oldest first."""
        with self._lock:
            rows = self._database.execute(
                "SELECT at, prompt_ids, region_id, region, model_version FROM suggestions "
                "WHERE project = ? AND task = ? ORDER BY id",
                (project, task),
            ).fetchall()
        return [
            {
                "at": at,
                "prompt_ids": json.loads(prompts),
                "region_id": region_id,
                "region": json.loads(region),
                "model_version": version,
            }
            for at, prompts, region_id, region, version in rows
        ]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()


def _slim(region: Region) -> str:
    value = {key: part for key, part in region["value"].items() if key not in {"rle", "imageDataURL"}}
    return json.dumps({**region, "value": value}, separators=(",", ":"))
