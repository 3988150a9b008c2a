"""Submitted annotations, and what they made of the suggestions, on record: figures are read from here."""

from __future__ import annotations

import datetime
import json
import re
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tator_ml.quality.comparison import Comparison
from tator_ml.quality.outcomes import Outcome, Submitted, judge, things_of
from tator_ml.quality.schema import SCHEMA
from tator_ml.sqlite_file import open_shared
from tator_ml.suggestions import Suggested
from tator_sdk.annotations import labels_of
from tator_sdk.settings import Settings

Json = Mapping[str, Any]
STORED = "stored"
_TAIL = re.compile(r"/(?:(?P<words>words-)[^/]*|(?P<check>check)|(?P<kind>prelabel|tweak|relabel|polygons)-[^/]*)$")
_KEPT = (
    "id", "type", "value", "from_name", "to_name", "original_width", "original_height", "item_index", "origin",
)  # fmt: skip


class QualityStore:
    """A SQLite file that web and workers share; annotations come, change and go, and outcomes follow."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._database = open_shared(path, SCHEMA)

    def put(
        self,
        project: int,
        task: int,
        annotation: Submitted,
        addresses: Mapping[tuple[str, int], str],
        newer_stays: bool = False,
    ) -> None:
        """Take an annotation as it is now, in place of what was known of it; :meth:`judge` is to follow.

        Args:
            project: Label Studio's number; ``task`` likewise.
            task: that it annotates.
            annotation: as submitted.
            addresses: of the task's pictures, by image tag and page.
            newer_stays: it comes from a page of the project, and a webhook may have told of a newer state since.
        """
        slim = [_slim(item) for item in annotation.result if isinstance(item, Mapping)]
        row = (
            project, annotation.annotation, task, annotation.annotator, annotation.created, annotation.updated,
            annotation.lead_seconds, annotation.parent, _packed(slim), week_of(annotation.created),
            len(things_of(annotation.result)),
        )  # fmt: skip
        with self.writing() as database:
            newer = "SELECT 1 FROM annotations WHERE project = ? AND annotation = ? AND updated > ?"
            if newer_stays and self.rows(newer, (project, annotation.annotation, annotation.updated)):
                return
            database.execute(
                "INSERT OR REPLACE INTO annotations (project, annotation, task, annotator, created, updated, "
                "lead_seconds, parent, result, week, objects) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            database.executemany(
                "INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?)",
                [
                    (project, task, name, page, url)
                    for (name, page), url in addresses.items()
                    if not url.startswith("data:")  # the picture itself: nothing to keep twice
                ],
            )

    def put_prediction(
        self, project: int, task: int, number: int, created: float, version: str, result: Sequence[Any]
    ) -> None:
        """Keep a prediction that an annotation began with: Label Studio may delete it."""
        slim = [_slim(item) for item in result if isinstance(item, Mapping)]
        with self.writing() as database:
            database.execute(
                "INSERT OR REPLACE INTO predictions VALUES (?, ?, ?, ?, ?, ?)",
                (project, number, task, created, version, _packed(slim)),
            )

    def knows_prediction(self, project: int, number: int) -> bool:
        """Whether a prediction is kept."""
        query = "SELECT 1 FROM predictions WHERE project = ? AND prediction = ?"
        return bool(self.rows(query, (project, number)))

    def delete(self, project: int, annotations: Sequence[int]) -> list[int]:
        """Forget annotations; returns the tasks that are to be judged again."""
        tasks = set()
        with self.writing() as database:
            for number in annotations:
                where = (project, number)
                query = "SELECT task FROM annotations WHERE project = ? AND annotation = ?"
                tasks |= {int(task) for (task,) in database.execute(query, where)}
                database.execute("DELETE FROM annotations WHERE project = ? AND annotation = ?", where)
                database.execute("DELETE FROM doubts WHERE project = ? AND annotation = ?", where)
        return sorted(tasks)

    def known(self, project: int) -> set[int]:
        """Numbers of the annotations that are on record."""
        return {int(one) for (one,) in self.rows("SELECT annotation FROM annotations WHERE project = ?", (project,))}

    def knows(self, project: int, annotation: int) -> bool:
        """Whether an annotation is on record."""
        query = "SELECT 1 FROM annotations WHERE project = ? AND annotation = ?"
        return bool(self.rows(query, (project, annotation)))

    def judge(self, project: int, task: int, suggested: Sequence[Suggested]) -> None:
        """Decide anew what became of the suggestions of a task.

        Args:
            project: Label Studio's number; ``task`` likewise.
            task: whose annotations decide.
            suggested: the answers to prompts on it.
        """
        with self.writing() as database:
            annotations = self._annotations_of(project, task)
            stored = self._stored(project, task, annotations)
            outcomes = judge([*suggested, *stored], annotations)
            people = {one.annotation: one for one in annotations}
            database.execute("DELETE FROM outcomes WHERE project = ? AND task = ?", (project, task))
            database.executemany(
                "INSERT INTO outcomes (project, task, annotation, annotator, week, at, assist, version, label, "
                "final_label, outcome, iou, image, suggested, final) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(project, task, *_row(one, people)) for one in outcomes],
            )
            decided = {one.annotation for one in outcomes}
            first = min((one.at for one in suggested), default=None)
            for one in annotations:
                parent = next((each.at for each in stored if each.annotation == one.annotation), None)
                chosen = self._comparison_at(project, one.created, first, parent)
                database.execute(
                    "UPDATE annotations SET assisted = ?, comparison = ?, drawn = ? "
                    "WHERE project = ? AND annotation = ?",
                    (
                        one.annotation in decided,
                        chosen.since if chosen else None,
                        chosen.draws(task) if chosen else None,
                        project,
                        one.annotation,
                    ),
                )

    def begin_comparison(self, project: int, comparison: Comparison) -> None:
        """Write down that a comparison begins; one that goes on ends."""
        with self.writing() as database:
            database.execute(
                "UPDATE comparisons SET ended = ? WHERE project = ? AND ended IS NULL", (comparison.since, project)
            )
            database.execute(
                "INSERT OR REPLACE INTO comparisons VALUES (?, ?, ?, ?, NULL)",
                (project, comparison.since, comparison.share, comparison.seed),
            )

    def end_comparison(self, project: int) -> None:
        """Write down that the comparison ends."""
        with self.writing() as database:
            query = "UPDATE comparisons SET ended = ? WHERE project = ? AND ended IS NULL"
            database.execute(query, (time.time(), project))

    def comparisons(self, project: int) -> list[tuple[Comparison, float | None]]:
        """A project's comparisons with when each ended, the newest first."""
        query = "SELECT share, seed, since, ended FROM comparisons WHERE project = ? ORDER BY since DESC"
        return [(Comparison(share, seed, since), ended) for share, seed, since, ended in self.rows(query, (project,))]

    def set_people(self, names: Mapping[int, str]) -> None:
        """Keep people's names by Label Studio's numbers."""
        with self.writing() as database:
            database.executemany("INSERT OR REPLACE INTO people VALUES (?, ?)", names.items())

    def people(self) -> dict[int, str]:
        """Names by number."""
        return {int(person): str(name) for person, name in self.rows("SELECT person, name FROM people")}

    def set_read(self, project: int, at: float) -> None:
        """The whole project was read."""
        with self.writing() as database:
            database.execute("INSERT OR REPLACE INTO readings VALUES (?, ?)", (project, at))

    def read_at(self, project: int) -> float | None:
        """When the whole project was last read; None where it never was."""
        found = self.rows("SELECT at FROM readings WHERE project = ?", (project,))
        return float(found[0][0]) if found else None

    def projects(self) -> set[int]:
        """Projects that anything is on record of."""
        query = "SELECT DISTINCT project FROM annotations UNION SELECT DISTINCT project FROM doubts"
        return {int(one) for (one,) in self.rows(query)}

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What a query finds."""
        with self._lock:
            return self._database.execute(query, values).fetchall()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction; within another one, a part of that."""
        with self._lock:
            if self._database.in_transaction:
                yield self._database
                return
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                yield self._database

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def _annotations_of(self, project: int, task: int) -> list[Submitted]:
        query = (
            "SELECT annotation, created, updated, result, annotator, lead_seconds, parent FROM annotations "
            "WHERE project = ? AND task = ? ORDER BY created, annotation"
        )
        return [
            Submitted(annotation, created, updated, unpacked(result), annotator, lead, parent)
            for annotation, created, updated, result, annotator, lead, parent in self.rows(query, (project, task))
        ]

    def _stored(self, project: int, task: int, annotations: Sequence[Submitted]) -> list[Suggested]:
        """The objects of the predictions that annotations began with."""
        query = "SELECT prediction, created, version, result FROM predictions WHERE project = ? AND task = ?"
        kept = {int(number): rest for number, *rest in self.rows(query, (project, task))}
        found = []
        for one in annotations:
            if one.parent not in kept:
                continue
            created, version, result = kept[one.parent]
            name, assist = origin_of(version)
            for region, thing in things_of(unpacked(result)).items():
                found.append(
                    Suggested(region, created, name, thing.item, thing.labels, assist, annotation=one.annotation)
                )
        return found

    def _comparison_at(
        self, project: int, created: float, first: float | None, parent: float | None
    ) -> Comparison | None:
        """The comparison that an annotation is part of: none where its task was assisted before that began."""
        for comparison, ended in self.comparisons(project):
            if comparison.since <= created and (ended is None or created < ended):
                before = any(at is not None and at < comparison.since for at in (first, parent))
                return None if before else comparison
        return None


def quality_store(settings: Settings) -> QualityStore:
    """The store of an installation."""
    return QualityStore(settings.home / "quality.sqlite")


def week_of(epoch: float) -> str:
    """The ISO week of a moment (UTC), as ``2026-W48``."""
    year, week, _ = datetime.datetime.fromtimestamp(epoch, datetime.UTC).isocalendar()
    return f"{year}-W{week:02d}"


def origin_of(version: str) -> tuple[str, str]:
    """A stored prediction's model version without the mark of the job that made it, and what kind of job that was."""
    found = _TAIL.search(version)
    if found is None:
        return version, STORED
    kind = "words" if found["words"] else found["check"] or found["kind"]
    return version[: found.start()], kind


def _row(one: Outcome, annotations: Mapping[int, Submitted]) -> tuple[Any, ...]:
    mine = annotations.get(one.annotation) if one.annotation is not None else None
    final = ", ".join(one.final.labels) if one.final else None
    suggested = one.suggested
    return (
        one.annotation, mine.annotator if mine else None, week_of(mine.created if mine else suggested.at),
        suggested.at, suggested.assist, suggested.version, ", ".join(suggested.labels) or final or "", final,
        one.what, one.iou, suggested.image, _packed(_slim(suggested.item)),
        _packed(one.final.item) if one.final else None,
    )  # fmt: skip


def _slim(item: Json) -> dict[str, Any]:
    """What is needed of a region: its place and its labels."""
    value = item.get("value")
    if not isinstance(value, Mapping):
        return {key: item[key] for key in ("id", "type") if key in item}
    if not str(item.get("type")).startswith(("rectangle", "polygon", "brush", "bitmask", "ellipse")):
        value = {"labels": list(labels_of(item))} if item.get("type") == "labels" else {}
    return {**{key: item[key] for key in _KEPT if key in item}, "value": value}


def _packed(what: Any) -> bytes:
    return zlib.compress(json.dumps(what, separators=(",", ":")).encode(), 1)


def unpacked(packed: bytes) -> Any:
    """What was kept."""
    return json.loads(zlib.decompress(packed))
