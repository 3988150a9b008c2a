"""The table as a part of a page of the documentation."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from pathlib import Path

from tests.faults.table import ROWS, Row

BEGIN, END = "<!-- faults -->", "<!-- /faults -->"
HEADINGS = ("what fails", "during", "what is seen", "what is lost", "how it recovers")


def cells(row: Row) -> tuple[str, ...]:
    """A row as the page has it."""
    return row.fault, row.during, row.seen, row.lost, row.recovers


def rows_of(page: Path) -> list[tuple[tuple[str, ...], str]]:
    """The rows between the markers of a page, each with its verdict."""
    found = []
    for line in _between(page.read_text()).splitlines():
        parts = tuple(part.strip() for part in line.strip().strip("|").split(" | "))
        if line.startswith("| ") and parts[0] != HEADINGS[0]:
            found.append((parts[:-1], parts[-1]))
    return found


def write(page: Path, verdicts: Sequence[str], date: datetime.date, tests: int, minutes: float) -> None:
    """Put the table and what came of it between the markers."""
    lines = [
        f"`make faults` on {date.isoformat()}: {list(verdicts).count('holds')} of {len(ROWS)} rows hold; {tests} tests "
        f"in {minutes:.0f} minutes, one process, on two cores shared with other work.",
        "",
        f"| {' | '.join(HEADINGS)} | |",
        f"|{'---|' * (len(HEADINGS) + 1)}",
        *(f"| {' | '.join(cells(row))} | {verdict} |" for row, verdict in zip(ROWS, verdicts, strict=True)),
    ]
    text = page.read_text()
    page.write_text(text.replace(_between(text), "\n" + "\n".join(lines) + "\n"))


def _between(text: str) -> str:
    found = re.search(f"{re.escape(BEGIN)}(.*?){re.escape(END)}", text, re.S)
    assert found is not None, f"the page has no {BEGIN} … {END}"
    return found[1]
