"""One JSON object a line for each figure, a file with machine and versions, and an exit code."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "torchvision", "numpy", "segment-anything", "open_clip_torch", "scikit-learn", "label-studio-sdk")


@dataclass(frozen=True)
class Figure:
    """A measured value, with the limit it must hold or none where it is only reported."""

    name: str
    value: float
    unit: str
    better: Literal["lower", "higher"]
    limit: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the limit holds; a figure without one always does."""
        if self.limit is None:
            return True
        return self.value <= self.limit if self.better == "lower" else self.value >= self.limit

    def as_json(self) -> dict[str, object]:
        """The line's object; no ``limit`` where none is set."""
        fields = asdict(self)
        if self.limit is None:
            del fields["limit"]
        return {**fields, "value": round(self.value, 4), "holds": self.holds}


def machine() -> str:
    """Processor and core count in words."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        if models:
            name = f"{len(models)} x {models[0]}"
    return f"{name}, {platform.system()} {platform.release()}"


def publish(bench: str, measured: Iterable[Figure]) -> int:
    """Print each figure as it comes, keep what there is in ``results/<bench>.json``, return the exit code.

    Where a later part fails, what the earlier ones measured is printed and written already.
    """
    figures: list[Figure] = []
    for figure in measured:
        print(json.dumps(figure.as_json()), flush=True)
        figures.append(figure)
        _write(bench, figures)
    return 0 if all(figure.holds for figure in figures) else 1


def _write(bench: str, figures: list[Figure]) -> None:
    RESULTS.mkdir(exist_ok=True)
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    content = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "python": platform.python_version(),
        "versions": versions,
        "figures": [figure.as_json() for figure in figures],
    }
    (RESULTS / f"{bench}.json").write_text(json.dumps(content, indent=2) + "\n")
