"""Run the benchmark that is named, or list all of them."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import benchmarks
from benchmarks.report import publish

HELPERS = {"__main__", "clicks_training", "clicks_warm", "head_speed", "material", "report", "station"}


def main() -> int:
    names = sorted({module.name for module in pkgutil.iter_modules(benchmarks.__path__)} - HELPERS)
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        for name in names:
            lines = (importlib.import_module(f"benchmarks.{name}").__doc__ or "").strip().splitlines()
            print(f"make bench NAME={name:<12} {lines[0] if lines else ''}")
        return 0 if len(sys.argv) < 2 else 2
    return publish(sys.argv[1], importlib.import_module(f"benchmarks.{sys.argv[1]}").measure())


if __name__ == "__main__":
    sys.exit(main())
