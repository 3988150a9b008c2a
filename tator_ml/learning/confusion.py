"""What a head takes for what, as a table for eyes and in words; the dashboard and ``tator models`` show the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tator_ml.reports import part, rows

MOST_CLASSES = 25
MOST_PAIRS = 8


@dataclass(frozen=True)
class Cell:
    """How often one class was taken for another, of ``share`` of the row; ``right`` on the diagonal."""

    count: int
    share: float
    right: bool


@dataclass(frozen=True)
class Pair:
    """A mix-up: ``count`` of ``of`` objects of ``true`` were taken for ``said``."""

    true: str
    said: str
    count: int
    of: int


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix.

    Attributes:
        names: of the classes that are shown, for rows (what is there) and columns (what the head says).
        places: of these among all classes, from 0.
        cells: rows of them; ``totals`` objects of each row, over all classes.
        pairs: the commonest mix-ups first.
        classes: how many there are in all.
    """

    names: tuple[str, ...]
    places: tuple[int, ...]
    cells: tuple[tuple[Cell, ...], ...]
    totals: tuple[int, ...]
    pairs: tuple[Pair, ...]
    classes: int


def confusion_of(
    metrics: Mapping[str, Any], most_classes: int = MOST_CLASSES, most_pairs: int = MOST_PAIRS
) -> Confusion | None:
    """The matrix of a head's held-out boxes; None where none was written down.

    Args:
        metrics: of its report.
        most_classes: a table of more is cut to its most confused ones.
        most_pairs: of the commonest mix-ups.
    """
    held_out = part(metrics, "held_out")
    names = [str(one.get("class")) for one in rows(held_out, "per_class") if isinstance(one, Mapping)]
    counts = rows(held_out, "confusion")
    if not names or [len(row) for row in counts] != [len(names)] * len(names) or not held_out.get("boxes"):
        return None
    every = range(len(names))
    totals = [sum(row) for row in counts]
    wrong = {(row, column): counts[row][column] for row in every for column in every if row != column}
    wrong = {place: count for place, count in wrong.items() if count}
    shown = list(every)
    if len(names) > most_classes:
        trouble = [0] * len(names)
        for (row, column), count in wrong.items():
            trouble[row] += count
            trouble[column] += count
        shown = sorted(sorted(every, key=lambda index: -trouble[index])[:most_classes])
    worst = sorted(wrong.items(), key=lambda one: (-one[1], one[0]))[:most_pairs]
    return Confusion(
        tuple(names[index] for index in shown),
        tuple(shown),
        tuple(
            tuple(
                Cell(counts[row][column], counts[row][column] / totals[row] if totals[row] else 0.0, row == column)
                for column in shown
            )
            for row in shown
        ),
        tuple(totals[index] for index in shown),
        tuple(Pair(names[row], names[column], count, totals[row]) for (row, column), count in worst),
        len(names),
    )
