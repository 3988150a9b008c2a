"""Data in and out: import against Label Studio's own endpoints, pushing under kill -9, boxes to polygons."""

from __future__ import annotations

from benchmarks import data_import, data_polygons, data_push
from benchmarks.report import Figure


def measure() -> list[Figure]:
    return [*data_import.measure(), *data_push.measure(), *data_polygons.measure()]
