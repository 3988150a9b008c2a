"""The table as a part of a page of the documentation."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from pathlib import Path

from tests.faults.row import Row
from tests.faults.table import ROWS

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


def how_run(page: Path) -> str:
    """How many tests were run in what time, as the page says it; empty where it does not."""
    found = re.search(r"\d+ tests in \d+ minutes", _between(page.read_text()))
    return found[0] if found else ""


def write(page: Path, verdicts: Sequence[str], date: datetime.date, said: str) -> None:
    """Put the table and what came of it between the markers; ``said`` of how it was run."""
    lines = [
        f"`make faults` on {date.isoformat()}: {list(verdicts).count('holds')} of {len(ROWS)} rows hold; {said}, "
        "one process, on two cores shared with other work.",
        "",
        f"| {' | '.join(HEADINGS)} | |",
        f"|{'---|' * (len(HEADINGS) + 1)}",
        *(f"| {' | '.join(cells(row))} | {verdict} |" for row, verdict in zip(ROWS, verdicts, strict=True)),
    ]
    text = page.read_text()
    begin, rest = text.split(BEGIN)
    page.write_text(begin + BEGIN + "\n" + "\n".join(lines) + "\n" + END + rest.partition(END)[2])


def _between(text: str) -> str:
    found = re.search(f"{re.escape(BEGIN)}(.*?){re.escape(END)}", text, re.S)
    assert found is not None, f"the page has no {BEGIN} … {END}"
    return found[1]
