"""Labels that a head finds improbable, one queue for each project; people look through it and dismiss what is right."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tator_ml.quality.disagreements import Disagreement
from tator_ml.quality.store import QualityStore
from tator_sdk.geometry import Xyxy

_COLUMNS = (
    "id, project, annotation, task, region, label, said, given, probability, head, image, x0, y0, x1, y1, width, "
    "height, at"
)
_DISMISSED = (
    "EXISTS (SELECT 1 FROM dismissals WHERE dismissals.project = doubts.project "
    "AND dismissals.annotation = doubts.annotation AND dismissals.region = doubts.region "
    "AND dismissals.label = doubts.label AND dismissals.said = doubts.said)"
)


@dataclass(frozen=True)
class Doubt:
    """A label that is doubtful.

    Attributes:
        task, annotation, region: where it stands in Label Studio.
        label: that a person gave; ``given`` the head's probability of it, 0..1.
        said: what the head says; ``probability`` of that.
        head: its version.
        image: content hash of the picture.
        xyxy: the object's box, pixels; ``size_wh`` the picture's size that they refer to.
        number: on record; 0 before.
        project: Label Studio's number; 0 before it is on record.
        at: when it was found, seconds since the epoch.
    """

    task: int
    annotation: int
    region: str
    label: str
    given: float
    said: str
    probability: float
    head: str
    image: str | None
    xyxy: Xyxy
    size_wh: tuple[int, int]
    number: int = 0
    project: int = 0
    at: float = 0.0

    @classmethod
    def of(
        cls,
        found: Disagreement,
        task: int,
        annotation: int,
        head: str,
        images: Mapping[tuple[str, str], str],
        region: str | None = None,
    ) -> Doubt:
        """What a check found.

        Args:
            found: of one box.
            task: Label Studio's number; ``annotation`` likewise.
            annotation: that holds the box.
            head: version of the one that judged.
            images: content hashes of pictures by region and label of the boxes.
            region: the region's id in the annotation; by default the box's.
        """
        box = found.box
        return cls(
            task, annotation, region or box.region, box.label, found.given, found.label, found.probability, head,
            images.get((box.region, box.label)), box.xyxy, box.size_wh,
        )  # fmt: skip


class Doubts:
    """The queues, in the file of the quality record."""

    def __init__(self, store: QualityStore) -> None:
        self._store = store

    def replace_all(self, project: int, found: Iterable[Doubt]) -> None:
        """A whole project was checked: what is found now is all there is."""
        with self._store.writing() as database:
            database.execute("DELETE FROM doubts WHERE project = ?", (project,))
            self._insert(project, found)

    def replace(self, project: int, annotation: int, found: Iterable[Doubt]) -> None:
        """An annotation was checked."""
        with self._store.writing() as database:
            database.execute("DELETE FROM doubts WHERE project = ? AND annotation = ?", (project, annotation))
            self._insert(project, found)

    def open(self, projects: Sequence[int], most: int, offset: int = 0) -> list[Doubt]:
        """Those that nobody dismissed, the most doubtful first."""
        return self._list(projects, f"NOT {_DISMISSED}", most, offset)

    def dismissed(self, projects: Sequence[int], most: int) -> list[Doubt]:
        """Those that somebody dismissed, the most doubtful first."""
        return self._list(projects, _DISMISSED, most, 0)

    def count(self, projects: Sequence[int]) -> tuple[int, int]:
        """How many are open, and how many dismissed."""
        marks = _marks(projects)
        query = f"SELECT {_DISMISSED}, COUNT(*) FROM doubts WHERE project IN ({marks}) GROUP BY 1"  # noqa: S608
        counts = dict(self._store.rows(query, list(projects)))
        return int(counts.get(0, 0)), int(counts.get(1, 0))

    def get(self, number: int) -> Doubt | None:
        """One of them; None where it is gone."""
        query = f"SELECT {_COLUMNS} FROM doubts WHERE id = ?"  # noqa: S608
        found = [_doubt(row) for row in self._store.rows(query, (number,))]
        return found[0] if found else None

    def dismiss(self, doubt: Doubt, by: str) -> None:
        """The person's label is right: the same doubt is not shown again. Nothing changes in Label Studio."""
        with self._store.writing() as database:
            database.execute(
                "INSERT OR REPLACE INTO dismissals VALUES (?, ?, ?, ?, ?, ?, ?)", (*_key(doubt), by, time.time())
            )

    def bring_back(self, doubt: Doubt) -> None:
        """Undo a dismissal."""
        with self._store.writing() as database:
            database.execute(
                "DELETE FROM dismissals WHERE project = ? AND annotation = ? AND region = ? AND label = ? AND said = ?",
                _key(doubt),
            )

    def _list(self, projects: Sequence[int], which: str, most: int, offset: int) -> list[Doubt]:
        rows = self._store.rows(
            f"SELECT {_COLUMNS} FROM doubts WHERE project IN ({_marks(projects)}) AND {which} "  # noqa: S608
            "ORDER BY given, probability DESC, id LIMIT ? OFFSET ?",
            [*projects, most, offset],
        )
        return [_doubt(row) for row in rows]

    def _insert(self, project: int, found: Iterable[Doubt]) -> None:
        now = time.time()
        with self._store.writing() as database:
            database.executemany(
                "INSERT OR REPLACE INTO doubts (project, annotation, task, region, label, said, given, probability, "
                "head, image, x0, y0, x1, y1, width, height, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, "
                "?, ?)",
                [
                    (
                        project, one.annotation, one.task, one.region, one.label, one.said, one.given, one.probability,
                        one.head, one.image, *one.xyxy, *one.size_wh, now,
                    )
                    for one in found
                ],
            )  # fmt: skip


def _marks(projects: Sequence[int]) -> str:
    return ", ".join("?" * len(projects)) or "NULL"


def _key(doubt: Doubt) -> tuple[Any, ...]:
    return doubt.project, doubt.annotation, doubt.region, doubt.label, doubt.said


def _doubt(row: tuple[Any, ...]) -> Doubt:
    (
        number, project, annotation, task, region, label, said, given, probability, head, image, x0, y0, x1, y1,
        width, height, at,
    ) = row  # fmt: skip
    return Doubt(
        task, annotation, region, label, given, said, probability, head, image, (x0, y0, x1, y1), (width, height),
        number, project, at,
    )  # fmt: skip
