"""What a head learns from: the labelled boxes of each project, followed as annotations come, change and go.

Webhooks write here, so that a retrain need not read the project again; a synchronisation (training/clip)
puts right what was missed while the backend was away.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from label_config.interface import Interface
from tator_ml.moments import epoch_of
from tator_ml.sqlite_file import begun_anew, open_shared
from tator_sdk.annotations import LabelledBox
from tator_sdk.geometry import Xyxy

SCHEMA = """
CREATE TABLE IF NOT EXISTS annotations (
    project INTEGER NOT NULL, annotation INTEGER NOT NULL, task INTEGER NOT NULL, updated TEXT NOT NULL,
    PRIMARY KEY (project, annotation)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS examples (
    project INTEGER NOT NULL, annotation INTEGER NOT NULL, region TEXT NOT NULL, task INTEGER NOT NULL,
    label TEXT NOT NULL, x0 REAL NOT NULL, y0 REAL NOT NULL, x1 REAL NOT NULL, y1 REAL NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, address TEXT NOT NULL, image TEXT,
    PRIMARY KEY (project, annotation, region)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS examples_by_address ON examples (project, address);
CREATE TABLE IF NOT EXISTS changes (
    project INTEGER NOT NULL, annotation INTEGER NOT NULL, at REAL NOT NULL, unread INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (project, annotation)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS offers (
    project INTEGER NOT NULL, annotation INTEGER NOT NULL, prediction INTEGER NOT NULL, said TEXT NOT NULL,
    PRIMARY KEY (project, annotation)
) WITHOUT ROWID;
"""

_ANNOTATION = "FROM annotations WHERE project = ? AND annotation = ?"


@dataclass(frozen=True)
class Example:
    """A labelled box of a project.

    Attributes:
        annotation, task, region: where it stands in Label Studio.
        label: its class.
        xyxy: pixels of the picture; ``size_wh`` is the picture's size that they refer to.
        address: where the task says the picture is.
        image: the picture's content hash; None until it was fetched.
    """

    annotation: int
    task: int
    region: str
    label: str
    xyxy: Xyxy
    size_wh: tuple[int, int]
    address: str
    image: str | None


class Examples:
    """A small SQLite file that web and workers share."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = open_shared(path, SCHEMA)

    def put(
        self,
        project: int,
        task: int,
        annotation: int,
        updated: str,
        boxes: Sequence[LabelledBox],
        addresses: Mapping[tuple[str, int], str],
        newer_stays: bool = False,
    ) -> None:
        """Take an annotation as it is now, in place of what was known of it: news to learn from.

        Args:
            project: Label Studio's number; ``task`` and ``annotation`` likewise.
            task: that it annotates.
            annotation: that holds the boxes.
            updated: its ``revision``.
            boxes: its boxes; none is an annotation without objects.
            addresses: of the task's pictures, by image tag and page.
            newer_stays: it comes from a page of the project, and a webhook may have told of a newer state since.
        """
        with self._writing() as database:
            where = (project, annotation)
            known = database.execute(f"SELECT updated {_ANNOTATION}", where).fetchone()
            if newer_stays and known is not None and 0 < _moment(updated) < _moment(known[0]):
                return
            images = dict(
                database.execute(
                    "SELECT address, image FROM examples WHERE project = ? AND task = ? AND image IS NOT NULL",
                    (project, task),
                ).fetchall()
            )
            self._forget(database, project, [annotation])
            database.execute("INSERT INTO annotations VALUES (?, ?, ?, ?)", (project, annotation, task, updated))
            rows = []
            for box in boxes:
                address = addresses.get((box.image_name, box.item_index))
                if address is not None:
                    place = (project, annotation, box.region, task, box.label, *box.xyxy, *box.size_wh)
                    rows.append((*place, address, images.get(address)))
            database.executemany(f"INSERT OR REPLACE INTO examples VALUES ({', '.join('?' * 13)})", rows)  # noqa: S608
            _note(database, project, [annotation])

    def delete(self, project: int, annotations: Sequence[int]) -> None:
        """Forget annotations that were deleted; those that are not known are no news."""
        with self._writing() as database:
            _note(database, project, self._forget(database, project, annotations))

    def keep_only(self, project: int, annotations: Iterable[int], among: Iterable[int] | None = None) -> int:
        """Forget what is not among the annotations that Label Studio still has; returns how many that were.

        Args:
            project: Label Studio's number.
            annotations: that it has.
            among: those known before it was asked, by default all; what came since is not forgotten.
        """
        kept = set(annotations)
        gone = [number for number in (self.known(project) if among is None else among) if number not in kept]
        self.delete(project, gone)
        return len(gone)

    def heard_of(self, project: int, annotations: Sequence[int]) -> None:
        """Annotations came of which nothing but the number is known; the project must be read for them."""
        with self._writing() as database:
            _note(database, project, annotations, unread=True)

    def offer(self, project: int, annotation: int) -> tuple[int, str] | None:
        """The prediction that stands as our offer on an annotation, and what it says; None where none does."""
        with self._lock:
            row = self._database.execute(
                "SELECT prediction, said FROM offers WHERE project = ? AND annotation = ?", (project, annotation)
            ).fetchone()
        return (int(row[0]), str(row[1])) if row else None

    def set_offer(self, project: int, annotation: int, prediction: int | None, said: str = "") -> None:
        """Remember the prediction that is our offer on an annotation, or that none is."""
        with self._writing() as database:
            database.execute("DELETE FROM offers WHERE project = ? AND annotation = ?", (project, annotation))
            if prediction is not None:
                database.execute("INSERT INTO offers VALUES (?, ?, ?, ?)", (project, annotation, prediction, said))

    def set_image(self, project: int, address: str, image: str) -> None:
        """The picture at an address has this content."""
        with self._writing() as database:
            database.execute(
                "UPDATE examples SET image = ? WHERE project = ? AND address = ?", (image, project, address)
            )

    def known(self, project: int) -> dict[int, str]:
        """Annotations of a project with their ``revision``."""
        with self._lock:
            rows = self._database.execute("SELECT annotation, updated FROM annotations WHERE project = ?", (project,))
            return {int(annotation): str(updated) for annotation, updated in rows}

    def knows(self, project: int, annotation: int) -> bool:
        """Whether an annotation is known now."""
        with self._lock:
            return self._database.execute(f"SELECT 1 {_ANNOTATION}", (project, annotation)).fetchone() is not None

    def of_project(self, project: int, annotation: int | None = None) -> list[Example]:
        """All examples of a project, or of one annotation, in a fixed order."""
        query = "SELECT annotation, task, region, label, x0, y0, x1, y1, width, height, address, image FROM examples "
        query += "WHERE project = ?" + (" AND annotation = ?" if annotation is not None else "")
        values = (project,) if annotation is None else (project, annotation)
        with self._lock:
            rows = self._database.execute(query + " ORDER BY annotation, region", values).fetchall()
        return [
            Example(number, task, region, label, (x0, y0, x1, y1), (width, height), address, image)
            for number, task, region, label, x0, y0, x1, y1, width, height, address, image in rows
        ]

    def counts(self) -> dict[int, dict[str, int]]:
        """Labelled boxes of each class, the commonest first, by project."""
        with self._lock:
            found = self._database.execute(
                "SELECT project, label, COUNT(*) FROM examples GROUP BY project, label ORDER BY 3 DESC"
            ).fetchall()
        counted: dict[int, dict[str, int]] = {}
        for project, label, count in found:
            counted.setdefault(project, {})[label] = count
        return counted

    def news(self, project: int) -> int:
        """How many annotations came, changed or went since training last began."""
        with self._lock:
            (count,) = self._database.execute("SELECT COUNT(*) FROM changes WHERE project = ?", (project,)).fetchone()
        return int(count)

    def unread(self, project: int) -> bool:
        """Whether some of what is to be learned can only be had by reading the project."""
        with self._lock:
            if begun_anew(self._database):
                return True
            query = "SELECT 1 FROM changes WHERE project = ? AND unread = 1 LIMIT 1"
            return self._database.execute(query, (project,)).fetchone() is not None

    def now(self) -> float:
        """The moment at hand, seconds since the epoch, and never before that of any news: clocks are put right."""
        with self._lock:
            return max(time.time(), _latest(self._database))

    def learned(self, project: int, until: float) -> None:
        """Training has taken in what was known at that time, as :meth:`now` told it."""
        with self._writing() as database:
            database.execute("DELETE FROM changes WHERE project = ? AND at <= ?", (project, until))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            yield self._database

    def _forget(self, database: sqlite3.Connection, project: int, annotations: Sequence[int]) -> list[int]:
        gone = []
        for annotation in annotations:
            found = database.execute(
                "DELETE FROM annotations WHERE project = ? AND annotation = ?", (project, annotation)
            )
            database.execute("DELETE FROM examples WHERE project = ? AND annotation = ?", (project, annotation))
            if found.rowcount:
                gone.append(annotation)
        return gone


def revision(updated_at: object, interface: Interface, addresses: Mapping[tuple[str, int], str]) -> str:
    """What an annotation's boxes depend on: its last change, the configuration's classes, the pictures' addresses."""
    depends = [interface.labels, sorted((*place, address) for place, address in addresses.items())]
    return f"{updated_at or ''} {hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:12]}"


def _moment(revised: str) -> float:
    """When an annotation last changed, seconds since the epoch, as its :func:`revision` says; 0 where it does not."""
    return epoch_of(revised.rpartition(" ")[0])


def _note(database: sqlite3.Connection, project: int, annotations: Sequence[int], unread: bool = False) -> None:
    now = max(time.time(), _latest(database) + 1e-6)
    rows = [(project, number, now, int(unread)) for number in annotations]
    database.executemany("INSERT OR REPLACE INTO changes VALUES (?, ?, ?, ?)", rows)


def _latest(database: sqlite3.Connection) -> float:
    (latest,) = database.execute("SELECT MAX(at) FROM changes").fetchone()
    return float(latest or 0.0)
