"""The checkpoints of a job: where they lie, what they are called, and which of them were written to their end."""

from __future__ import annotations

import shutil
from pathlib import Path

COMPLETE = "complete"
"""Marks a checkpoint that was written to its end."""


def checkpoints_in(folder: Path) -> Path:
    """Where a job keeps its checkpoints."""
    return folder / "checkpoints"


def step_of(folder: Path) -> int:
    """The step in the name of a checkpoint, or of a folder of best weights."""
    return int(folder.name.rpartition("-")[2])


def whole_checkpoints(folder: Path) -> list[Path]:
    """Those of a job that are whole, the oldest first."""
    found = (path for path in checkpoints_in(folder).glob("checkpoint-*") if (path / COMPLETE).exists())
    return sorted(found, key=step_of)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a job; what a kill cut short counts for nothing."""
    return next(reversed(whole_checkpoints(folder)), None)


def remove_unfinished(folder: Path) -> None:
    """Remove the checkpoints of a job that a kill cut short."""
    whole = whole_checkpoints(folder)
    for path in checkpoints_in(folder).glob("checkpoint-*"):
        if path not in whole:
            shutil.rmtree(path, ignore_errors=True)
