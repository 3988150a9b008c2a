"""Data in and out: import against Label Studio's own endpoints, pushing under kill -9, boxes to polygons."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import data_import, data_polygons, data_push
from benchmarks.report import Figure


def measure() -> Iterator[Figure]:
    """Part by part, so that the first figures are there before the last are measured."""
    for part in (data_import, data_push, data_polygons):
        yield from part.measure()
