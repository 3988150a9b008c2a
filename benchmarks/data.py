"""Data in and out: import against Label Studio's own endpoints, pushing under kill -9, boxes to polygons."""

from __future__ import annotations

import importlib
from importlib.util import find_spec

from benchmarks import data_import, data_push
from benchmarks.report import Figure


def measure() -> list[Figure]:
    figures = data_import.measure() + data_push.measure()
    if find_spec("benchmarks.data_polygons"):
        figures += importlib.import_module("benchmarks.data_polygons").measure()
    return figures
