"""Shares of what became of suggestions, by class, model version, annotator, week and assist; each with its interval."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tator_ml.quality.intervals import Interval, wilson
from tator_ml.quality.store import QualityStore

By = Literal["label", "version", "annotator", "week", "assist"]
BY: tuple[By, ...] = ("label", "version", "annotator", "week", "assist")
FEW = 20
"""Fewer suggestions than this are called few: their interval is wider than a third."""


@dataclass(frozen=True)
class Wanted:
    """Which outcomes are counted; None and empty values leave a choice open.

    Attributes:
        projects: numbers.
        since, until: first and last ISO week, as ``2026-W48``.
        version: of the model.
        label: class; ``annotator`` and ``assist`` likewise.
    """

    projects: Sequence[int]
    since: str = ""
    until: str = ""
    version: str = ""
    label: str | None = None
    annotator: int | None = None
    assist: str | None = None

    def where(self, but: Sequence[str] = ()) -> tuple[str, list[Any]]:
        """As a condition in SQL, with its values; without the columns in ``but``."""
        marks = ", ".join("?" * len(self.projects)) or "NULL"
        conditions, values = [f"project IN ({marks})"], list[Any](self.projects)
        for condition, column, value in (
            ("week >= ?", "week", self.since or None),
            ("week <= ?", "week", self.until or None),
            ("version = ?", "version", self.version or None),
            ("label = ?", "label", self.label),
            ("annotator = ?", "annotator", self.annotator),
            ("assist = ?", "assist", self.assist),
        ):
            if value is not None and column not in but:
                conditions.append(condition)
                values.append(value)
        return " AND ".join(conditions), values


@dataclass(frozen=True)
class Tally:
    """How many suggestions came to what.

    Attributes:
        accepted: as they were; ``edited`` in their shape; ``relabelled`` whatever their shape; ``unused`` not at all.
        edited: see ``accepted``.
        relabelled: see there.
        unused: see there.
        replaced: by a later answer about the same object; they are counted nowhere else.
        edited_iou: mean IoU between suggested and final of those that were edited; None where there are none.
        used_iou: likewise of all that were used.
    """

    accepted: int = 0
    edited: int = 0
    relabelled: int = 0
    unused: int = 0
    replaced: int = 0
    edited_iou: float | None = None
    used_iou: float | None = None

    @property
    def decided(self) -> int:
        """How many suggestions the shares are of."""
        return self.accepted + self.edited + self.relabelled + self.unused

    @property
    def used(self) -> int:
        """How many became part of an annotation."""
        return self.decided - self.unused

    @property
    def few(self) -> bool:
        """Whether they are too few to say much."""
        return self.decided < FEW

    def share(self, what: str) -> float | None:
        """Of the decided ones: ``accepted``, ``edited``, ``relabelled``, ``unused`` or ``used``."""
        return int(getattr(self, what)) / self.decided if self.decided else None

    def interval(self, what: str) -> Interval | None:
        """Where that share may well lie."""
        return wilson(int(getattr(self, what)), self.decided)


@dataclass(frozen=True)
class Figures:
    """All figures of a choice.

    Attributes:
        total: of all.
        groups: by what they are grouped by, the tallies by name; weeks in order, others the largest first.
    """

    total: Tally
    groups: Mapping[By, Mapping[str, Tally]] = field(default_factory=dict)


def figures(store: QualityStore, wanted: Wanted) -> Figures:
    """Count what is on record, from sums that are kept up to date."""
    where, values = wanted.where()
    cells = store.rows(
        "SELECT label, version, annotator, week, assist, outcome, count, measured, iou "  # noqa: S608 - no user's text
        f"FROM tallies WHERE {where}",
        values,
    )
    people = store.people()

    def person(number: Any) -> str:
        return people.get(number, f"person {number}") if number else "unknown"

    names: dict[By, Callable[[Any], str]] = dict.fromkeys(BY, str)
    names["annotator"] = person
    groups = {}
    for place, by in enumerate(BY):
        sorted_out: dict[Any, list[tuple[Any, ...]]] = {}
        for cell in cells:
            sorted_out.setdefault(cell[place], []).append(cell[5:])
        tallies = {names[by](key): _tally(rows) for key, rows in sorted_out.items()}
        if by == "annotator":  # nobody decided about those
            tallies = {name: one for name, one in tallies.items() if one.decided}
        order = sorted(tallies) if by == "week" else sorted(tallies, key=lambda name: (-tallies[name].decided, name))
        groups[by] = {name: tallies[name] for name in order}
    return Figures(_tally([cell[5:] for cell in cells]), groups)


def choices(store: QualityStore, projects: Sequence[int]) -> dict[str, list[str]]:
    """Weeks and versions that there are to choose from, in order."""
    where, values = Wanted(projects).where()
    found = {}
    for column in ("week", "version"):
        query = f"SELECT DISTINCT {column} FROM tallies WHERE {where} ORDER BY {column}"  # noqa: S608
        found[column] = [str(one) for (one,) in store.rows(query, values)]
    return found


def changed_labels(store: QualityStore, wanted: Wanted, most: int = 20) -> list[tuple[str, str, int]]:
    """Which label became which other, how often; the most frequent first."""
    where, values = wanted.where()
    return [
        (str(one), str(other), int(count))
        for one, other, count in store.rows(
            f"SELECT label, final_label, COUNT(*) FROM outcomes WHERE {where} AND outcome = 'relabelled' "  # noqa: S608
            "GROUP BY label, final_label ORDER BY 3 DESC, 1, 2 LIMIT ?",
            [*values, most],
        )
    ]


def _tally(cells: Iterable[tuple[Any, ...]]) -> Tally:
    """The sum of some cells: outcome, count, how many have an IoU, and the sum of those."""
    counts: dict[str, int] = {}
    measured: dict[str, int] = {}
    sums: dict[str, float] = {}
    for outcome, count, with_iou, iou in cells:
        counts[outcome] = counts.get(outcome, 0) + count
        measured[outcome] = measured.get(outcome, 0) + with_iou
        sums[outcome] = sums.get(outcome, 0.0) + iou
    used = ("accepted", "edited", "relabelled")
    measured_used = sum(measured.get(one, 0) for one in used)
    return Tally(
        **counts,
        edited_iou=sums["edited"] / measured["edited"] if measured.get("edited") else None,
        used_iou=sum(sums.get(one, 0.0) for one in used) / measured_used if measured_used else None,
    )
