"""Run the benchmark that is named, or list all of them."""

from __future__ import annotations

import importlib
import sys

from benchmarks.report import publish
from tator_sdk.cli import let_waiting_threads_sleep

BENCHMARKS = ("clicks", "dashboard", "data", "formats", "head", "load", "qwen", "sam3", "scale", "starter", "tweak")


def main() -> int:
    let_waiting_threads_sleep()  # what is compared computes under the same conditions as Tator's own processes
    if len(sys.argv) < 2 or sys.argv[1] not in BENCHMARKS:
        for name in BENCHMARKS:
            lines = (importlib.import_module(f"benchmarks.{name}").__doc__ or "").strip().splitlines()
            print(f"make bench NAME={name:<12} {lines[0] if lines else ''}")
        return 0 if len(sys.argv) < 2 else 2
    return publish(sys.argv[1], importlib.import_module(f"benchmarks.{sys.argv[1]}").measure())


if __name__ == "__main__":
    sys.exit(main())
