"""SAM 3: what asking by phrases costs, whether answers are upstream's, and whether tuning teaches a model anything."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.report import Figure


def measure() -> Iterator[Figure]:
    """Speed first: learning takes most of an hour, goes on where it was interrupted, and is done only once."""
    from benchmarks import sam3_learning, sam3_speed  # each loads what it needs when it is asked for

    for part in (sam3_speed, sam3_learning):
        yield from part.measure()
