"""A row of the table of faults: what fails, and what must hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Fault = Literal[
    "Label Studio killed",
    "Label Studio slow",
    "Label Studio answers 500",
    "Label Studio answers 429",
    "Label Studio breaks off in half a body",
    "Redis killed",
    "Redis full",
    "Redis restarted empty",
    "Worker killed",
    "Backend killed",
    "Engine killed",
    "Disk full",
    "Clock jump",
    "Token expired",
    "Project deleted",
    "Configuration changed",
    "Image changed",
    "Two workers, one job",
    "Model file damaged",
    "Record damaged",
]
"""What may fail; a test checks that each has its rows."""


@dataclass(frozen=True)
class Row:
    """One fault at one moment.

    Attributes:
        fault: what fails.
        during: when.
        seen: what the annotator, or whoever started the job, sees.
        lost: of people's work and of the machine's.
        recovers: by itself, or by which command.
        tests: node ids of what executes it, without their parameters.
        kind: of the job whose process is killed.
    """

    fault: Fault
    during: str
    seen: str
    lost: str
    recovers: str
    tests: tuple[str, ...]
    kind: str = ""
