"""When two names mean the same class."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

Strength = Literal["exact", "folded", "plural"]
STRENGTHS: tuple[Strength, ...] = ("exact", "folded", "plural")
"""From the strictest to the most lenient."""


def same_name(one: str, other: str, strength: Strength) -> bool:
    """Whether two class names are the same.

    ``exact`` compares as written, ``folded`` without case, underscores, hyphens and outer blanks, ``plural`` also
    without the simple English plural of the last word.

    Example:
        >>> same_name("Traffic light", "traffic_lights", "plural")
        True
    """
    if strength == "exact":
        return one == other
    if strength == "folded":
        return fold(one) == fold(other) != ""
    return not _singulars(one).isdisjoint(_singulars(other))


def fold(name: str) -> str:
    """A name in folded case, with one blank for every run of blanks, underscores and hyphens."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


@lru_cache(maxsize=4096)
def _singulars(name: str) -> frozenset[str]:
    """The folded name and what it may be the plural of."""
    word = fold(name)
    forms = {word} - {""}
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        forms.add(word[:-1])
        if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
            forms.add(word[:-2])
        if word.endswith("ies"):
            forms.add(f"{word[:-3]}y")
    return frozenset(forms)
