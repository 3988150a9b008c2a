"""What is said about a field of a request, the same on the command line and in forms."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from pydantic import BaseModel
from pydantic.fields import FieldInfo

BOUNDS = ("ge", "gt", "le", "lt")


def bounds_of(field: FieldInfo) -> dict[str, float]:
    """Bounds of a number by what they are called in pydantic: ``ge``, ``gt``, ``le``, ``lt``."""
    return {
        word: getattr(constraint, word)
        for constraint in field.metadata
        for word in BOUNDS
        if getattr(constraint, word, None) is not None
    }


def bounds_in_words(field: FieldInfo) -> str:
    """``0 to 1``, ``above 0, below 0.9``, ``at least 1``; empty without bounds."""
    known = bounds_of(field)
    if {"ge", "le"} <= set(known):
        return f"{known['ge']} to {known['le']}"
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return ", ".join(f"{said} {known[word]:g}" for word, said in words.items() if word in known)


def sections_of(model: type[BaseModel]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Headings of a model with the fields below each, in order; an empty one for fields that stand below none."""
    headings = getattr(model, "SECTIONS", {})
    heading, placed = "", []
    for name in model.model_fields:
        heading = headings.get(name, heading)
        placed.append((heading, name))
    for title, fields in groupby(placed, key=lambda one: one[0]):
        yield title, tuple(name for _, name in fields)
