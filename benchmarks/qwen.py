"""Qwen: what asking in words costs, how clicks fare meanwhile, and whether tuning teaches a model anything."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import qwen_learning, qwen_speed
from benchmarks.report import Figure


def measure() -> Iterator[Figure]:
    """Speed first: learning takes most of an hour, goes on where it was interrupted, and is done only once."""
    for part in (qwen_speed, qwen_learning):
        yield from part.measure()
