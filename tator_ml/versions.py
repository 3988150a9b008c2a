"""Folders of models' versions: their names, counted for each kind and project, and their removal."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

GONE = ".gone-"
"""Begins the name of a folder that is being removed."""


def next_version(folder: Path, kind: str, project: int | None, digest: str) -> str:
    """The name of the next version in a folder of them: ``head-p3-5-0a1b2c``, or ``head-5-0a1b2c`` of no project."""
    prefix = f"{kind}-p{project}-" if project is not None else f"{kind}-"
    numbers = [
        int(found[1])
        for path in folder.iterdir()
        if (found := re.fullmatch(re.escape(prefix) + r"(\d+)-[0-9a-f]{6}", path.name))
    ]
    return f"{prefix}{max(numbers, default=0) + 1}-{digest[:6]}"


def remove_version(folder: Path) -> None:
    """Delete a version's folder: at once it is in no list any more. What killed removals left goes with it.

    Raises:
        OSError: it cannot be renamed; nothing is lost then.
    """
    gone = folder.with_name(f"{GONE}{folder.name}")
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    for left in folder.parent.glob(f"{GONE}*"):
        shutil.rmtree(left, ignore_errors=True)
