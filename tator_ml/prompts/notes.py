"""What stands in a region's info: lines of ours, which each answer writes anew, and notes of people, which stay."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

OURS = re.compile(
    r"(tightened: |box kept: |drawn box kept: |mask quality |drawn, [01]\.\d\d |like the drawn box |.+ [01]\.\d\d · )"
)
"""How lines of ours begin."""


def noted(item: Mapping[str, Any], info: Sequence[str]) -> dict[str, Any]:
    """The ``meta`` of a region that is answered under its own id: what people noted, then our lines.

    Args:
        item: the region as it stood.
        info: our new lines.
    """
    meta = item.get("meta")
    meta = dict(meta) if isinstance(meta, Mapping) else {}
    lines = meta.get("text") or []
    lines = [lines] if isinstance(lines, str) else list(lines)
    kept = [line for line in lines if not OURS.match(str(line))]
    return {**meta, "text": [*kept, *info]} if kept or info else {key: meta[key] for key in meta if key != "text"}
