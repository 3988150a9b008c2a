"""Reading what a training wrote down, which may be of another version of Tator or brought from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def part(values: object, *names: str) -> dict[str, Any]:
    """A part of a report; empty where it is not there, as in one that was brought from elsewhere."""
    for name in names:
        values = values.get(name) if isinstance(values, Mapping) else None
    return dict(values) if isinstance(values, Mapping) else {}


def rows(values: Mapping[str, Any], name: str) -> list[Any]:
    """A list in a report, empty where it is not there."""
    found = values.get(name)
    return list(found) if isinstance(found, list) else []
