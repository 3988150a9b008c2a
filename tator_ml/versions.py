"""Names of models' versions, counted for each kind and project."""

from __future__ import annotations

import re
from pathlib import Path


def next_version(folder: Path, kind: str, project: int | None, digest: str) -> str:
    """The name of the next version in a folder of them: ``head-p3-5-0a1b2c``, or ``head-5-0a1b2c`` of no project."""
    prefix = f"{kind}-p{project}-" if project is not None else f"{kind}-"
    numbers = [
        int(found[1])
        for path in folder.iterdir()
        if (found := re.fullmatch(re.escape(prefix) + r"(\d+)-[0-9a-f]{6}", path.name))
    ]
    return f"{prefix}{max(numbers, default=0) + 1}-{digest[:6]}"
