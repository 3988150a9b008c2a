"""Our own record of what was suggested: Label Studio does not keep interactive answers."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tator_ml.sqlite_file import open_shared
from tator_sdk.annotations import labels_of
from tator_sdk.regions import Region

log = logging.getLogger(__name__)

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
ADDED = {"assist": "TEXT NOT NULL DEFAULT ''", "image": "TEXT", "mask": "BLOB", "before": "BLOB"}
"""Columns that files of the first versions do not have."""
BULKY = ("rle", "imageDataURL")


@dataclass(frozen=True)
class Suggested:
    """One object that was suggested.

    Attributes:
        region: the id that it was given.
        at: when, seconds since the epoch.
        version: of the model.
        item: the region as it was suggested, with its mask.
        labels: that it carried.
        assist: ``points``, ``boxes``, ``strokes``, ``text``, ``exemplars`` or ``tweak``; ``stored`` for an object of
            a prediction that Label Studio keeps; empty where it was not recorded.
        prompts: ids of the prompts that asked for it.
        image: content hash of the picture; None where it was not recorded.
        before: the region as it stood under the same id when it was asked about: the drawing; None without one.
        annotation: that a stored one was put before; None for an answer to a prompt.
    """

    region: str
    at: float
    version: str
    item: Mapping[str, Any] = field(hash=False)
    labels: tuple[str, ...] = ()
    assist: str = ""
    prompts: frozenset[str] = frozenset()
    image: str | None = None
    before: Mapping[str, Any] | None = field(default=None, hash=False)
    annotation: int | None = None


class Suggestions:
    """A small SQLite file; one row for each suggested region."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = open_shared(path, SCHEMA, _add_columns)

    def record(
        self,
        project: int | None,
        task: int | None,
        prompt_ids: Sequence[str],
        regions: Sequence[Region],
        model_version: str,
        assist: str = "",
        image: str | None = None,
        before: Sequence[object] = (),
    ) -> None:
        """Keep what was answered; where the file takes nothing, the log says so and the answer goes out all the same.

        Args:
            project: Label Studio's number; ``task`` likewise.
            task: that was asked about.
            prompt_ids: of the prompts that the request held.
            regions: the answer.
            model_version: that answered.
            assist: see :class:`Suggested`.
            image: content hash of the picture.
            before: regions that stood when it was asked; those under an answer's id are kept with it.
        """
        now = time.time()
        stood = {str(one.get("id")): one for one in before if isinstance(one, Mapping)}
        rows = []
        for one in regions:
            slim, mask = _apart(one)
            name = str(one["id"])
            drawn = _packed(stood[name]) if name in stood and _has_extent(stood[name]) else None
            rows.append(
                (
                    now,
                    project,
                    task,
                    json.dumps(list(prompt_ids)),
                    name,
                    slim,
                    model_version,
                    assist,
                    image,
                    mask,
                    drawn,
                )
            )
        try:
            with self._lock, self._database:
                self._database.executemany(
                    "INSERT INTO suggestions (at, project, task, prompt_ids, region_id, region, model_version, assist, "
                    "image, mask, before) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    rows,
                )
        except sqlite3.DatabaseError as error:
            log.error("project %s, task %s: what was suggested is not on record: %s", project, task, error)

    def of_task(self, project: int, task: int) -> list[dict[str, object]]:
        """What was suggested on a task, oldest first, without masks."""
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

    def known_ids(self, project: int, task: int) -> set[str]:
        """Ids of the regions that were suggested on a task; none where the record cannot be read, as the log says."""
        try:
            with self._lock:
                rows = self._database.execute(
                    "SELECT DISTINCT region_id FROM suggestions WHERE project = ? AND task = ?", (project, task)
                ).fetchall()
        except sqlite3.DatabaseError as error:
            log.error("project %s, task %s: the record of suggestions cannot be read: %s", project, task, error)
            return set()
        return {str(name) for (name,) in rows}

    def objects_of(self, project: int, task: int) -> list[Suggested]:
        """The objects that were suggested on a task, oldest first; one with its label in a second region is one."""
        with self._lock:
            rows = self._database.execute(
                "SELECT at, prompt_ids, region_id, region, model_version, assist, image, mask, before "
                "FROM suggestions WHERE project = ? AND task = ? ORDER BY id",
                (project, task),
            ).fetchall()
        found: dict[tuple[float, str], Suggested] = {}
        for at, prompts, name, region, version, assist, image, mask, before in rows:
            item = _together(region, mask)
            known = found.get((at, name))
            labels = (known.labels if known else ()) or labels_of(item)
            found[at, name] = Suggested(
                name, at, version, known.item if known else item, labels, assist,
                frozenset(map(str, json.loads(prompts))), image, _unpacked(before) if before else None,
            )  # fmt: skip
        return list(found.values())

    def tasks(self, project: int) -> list[int]:
        """Tasks of a project on which something was suggested."""
        with self._lock:
            rows = self._database.execute(
                "SELECT DISTINCT task FROM suggestions WHERE project = ? AND task IS NOT NULL", (project,)
            ).fetchall()
        return [int(task) for (task,) in rows]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()


def _has_extent(item: Mapping[str, Any]) -> bool:
    return str(item.get("type")).startswith(("rectangle", "polygon", "brush", "bitmask", "ellipse"))


def _apart(region: Region) -> tuple[str, bytes | None]:
    """A region's JSON without its mask, and the mask: a run length in Label Studio's form is a byte each."""
    value = {key: part for key, part in region["value"].items() if key not in BULKY}
    runs, picture = region["value"].get("rle"), region["value"].get("imageDataURL")
    mask = None
    if isinstance(runs, list):
        mask = b"r" + zlib.compress(bytes(runs), 1)
    elif isinstance(picture, str):
        mask = b"u" + picture.encode()
    return json.dumps({**region, "value": value}, separators=(",", ":")), mask


def _together(slim: str, mask: bytes | None) -> dict[str, Any]:
    item: dict[str, Any] = json.loads(slim)
    if mask and mask[:1] == b"r":
        item["value"]["rle"] = list(zlib.decompress(mask[1:]))
    elif mask:
        item["value"]["imageDataURL"] = mask[1:].decode()
    return item


def _packed(item: Mapping[str, Any]) -> bytes:
    kept = ("id", "type", "value", "from_name", "to_name", "original_width", "original_height", "item_index")
    return zlib.compress(json.dumps({key: item[key] for key in kept if key in item}).encode(), 1)


def _unpacked(packed: bytes) -> dict[str, Any]:
    return dict(json.loads(zlib.decompress(packed)))


def _add_columns(database: sqlite3.Connection) -> None:
    """What files of the first version lack."""
    there = {row[1] for row in database.execute("PRAGMA table_info(suggestions)")}
    for name, kind in ADDED.items():
        if name not in there:
            database.execute(f"ALTER TABLE suggestions ADD COLUMN {name} {kind}")
