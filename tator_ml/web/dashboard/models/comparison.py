"""Two versions side by side: figures with differences, classes, settings, and whether they may be compared at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tator_ml.reports import part, rows
from tator_ml.web.dashboard.models.versions import LESS_IS_BETTER, Version


@dataclass(frozen=True)
class Line:
    """One figure of both; ``better`` is 1 or 2, or 0 where there is nothing to tell."""

    name: str
    first: float | None
    second: float | None
    better: int

    @property
    def difference(self) -> float | None:
        """The second one's lead in numbers."""
        return None if self.first is None or self.second is None else self.second - self.first


@dataclass(frozen=True)
class Setting:
    """A setting of the trainings that differs."""

    name: str
    first: str
    second: str


@dataclass(frozen=True)
class Comparison:
    """What two versions of a role differ in.

    Attributes:
        figures: on the held-out pictures of each.
        classes: F1 of heads, AP of others, for each class that one of them knows.
        settings: of their trainings.
        caution: why the figures may not be compared as they stand; empty where they may.
        judged: what the gate found when it compared the two on the same pictures; empty where it did not.
    """

    figures: tuple[Line, ...]
    classes: tuple[Line, ...]
    settings: tuple[Setting, ...]
    caution: str
    judged: str


def compare(first: Version, second: Version, names: Mapping[str, str]) -> Comparison:
    """Set two versions of a role side by side; ``names`` of the role's figures."""
    figures = tuple(
        _line(title, first.figures.get(name), second.figures.get(name), name in LESS_IS_BETTER)
        for name, title in names.items()
        if name in first.figures or name in second.figures
    )
    one, other = per_class(first), per_class(second)
    classes = tuple(_line(name, one.get(name), other.get(name)) for name in dict.fromkeys([*one, *other]))
    return Comparison(figures, classes, _settings(first, second), _caution(first, second), _judged(first, second))


def per_class(version: Version) -> dict[str, float | None]:
    """F1 or AP of each class."""
    if version.role == "head":
        found = rows(part(version.metrics, "held_out"), "per_class")
        return {str(one.get("class")): one.get("f1") for one in found if isinstance(one, Mapping)}
    return part(version.gate, "candidate", "per_class")


def _line(name: str, first: Any, second: Any, less: bool = False) -> Line:
    numbers = [one if isinstance(one, (int, float)) else None for one in (first, second)]
    better = 0
    if numbers[0] is not None and numbers[1] is not None and numbers[0] != numbers[1]:
        better = 1 if (numbers[0] > numbers[1]) != less else 2
    return Line(name, numbers[0], numbers[1], better)


def _settings(first: Version, second: Version) -> tuple[Setting, ...]:
    changed = [{name: value for name, value, _ in one.changed_settings} for one in (first, second)]
    names = dict.fromkeys([*changed[0], *changed[1]])
    found = (Setting(name, changed[0].get(name, ""), changed[1].get(name, "")) for name in names)
    return tuple(one for one in found if one.first != one.second)


def _caution(first: Version, second: Version) -> str:
    if not first.figures or not second.figures:
        return "One of them was not measured, so there is nothing to compare."
    one, other = first.held_out(), second.held_out()
    if not one or not other:
        return "It is not known on which pictures one of them was measured; the figures may be of different ones."
    if one == other:
        return ""
    both = len(one & other)
    return (
        f"They were not measured on the same pictures: {len(one)} and {len(other)} were held out, {both} of them from "
        "both. A difference of the figures may come from the pictures."
    )


def _judged(first: Version, second: Version) -> str:
    """What was found on the same pictures, when the newer one was trained."""
    for new, old in ((first, second), (second, first)):
        gate = new.gate
        if old.id not in (gate.get("active_version"), gate.get("active_id")):
            continue
        mine, theirs = gate.get("candidate"), gate.get("active")
        if new.role != "head":
            name = next(iter(new.figures), "")
            mine, theirs = part(gate, "candidate").get(name), part(gate, "active").get(name)
        if isinstance(mine, (int, float)) and isinstance(theirs, (int, float)):
            return (
                f"On the same {new.pictures} held-out pictures, when {new.id} was trained: {new.id} {mine:.3f}, "
                f"{old.id} {theirs:.3f}."
            )
    return ""
