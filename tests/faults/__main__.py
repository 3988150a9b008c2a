"""Run every row of the table, and say which hold: ``python -m tests.faults``.

With ``--write PAGE`` the table goes into the page, between its markers; with ``--again`` only those rows are run that
did not hold on the page, and the page says so.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from pathlib import Path

import pytest

from tests.faults.page import cells, how_run, rows_of, write
from tests.faults.table import ROWS

ROOT = Path(__file__).parents[2]


class Outcomes:
    """What came of each test, by its node id without parameters."""

    def __init__(self, only: frozenset[str] | None = None) -> None:
        """Prepare; ``only`` these tests, or all that the table names and all that are marked as faults."""
        self.of: dict[str, set[str]] = {}
        self._only = only

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keep what is wanted."""
        named = {test for row in ROWS for test in row.tests} if self._only is None else self._only
        marked = self._only is None
        kept = [one for one in items if _bare(one.nodeid) in named or (marked and one.get_closest_marker("faults"))]
        config.hook.pytest_deselected(items=[one for one in items if one not in set(kept)])
        items[:] = kept

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a report; of the three of a test, its own call counts, and failures and skips of the others."""
        if report.when == "call" or report.outcome != "passed":
            self.of.setdefault(_bare(report.nodeid), set()).add(report.outcome)

    def of_tests(self, tests: tuple[str, ...]) -> str:
        """``holds``, ``fails``, or ``skipped``, of a row."""
        found = {outcome for test in tests for outcome in self.of.get(test, {"missing"})}
        if found & {"failed", "missing"}:
            return "fails"
        return "skipped" if found == {"skipped"} else "holds"


def _bare(nodeid: str) -> str:
    return nodeid.partition("[")[0]


def main() -> int:
    """Run, print, write; 0 where every row holds."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the table into this page")
    parser.add_argument("--again", action="store_true", help="only the rows that do not hold on the page")
    parser.add_argument("pytest", nargs="*", help="further options of pytest, after --")
    given = parser.parse_args()
    before = dict(rows_of(ROOT / given.write)) if given.write and given.again else {}
    wanted = [row for row in ROWS if before.get(cells(row)) != "holds"]
    files = sorted({test.partition("::")[0] for row in wanted for test in row.tests}) if before else ["tests"]
    outcomes = Outcomes(frozenset(test for row in wanted for test in row.tests) if before else None)
    begun = time.monotonic()
    code = int(pytest.main(["-q", "-p", "no:cacheprovider", *files, *given.pytest], plugins=[outcomes]))
    minutes = (time.monotonic() - begun) / 60
    verdicts = [outcomes.of_tests(row.tests) if row in wanted else "holds" for row in ROWS]
    for row, verdict in zip(ROWS, verdicts, strict=True):
        print(f"{verdict:8} {row.fault}: {row.during}")
    print(f"{verdicts.count('holds')} of {len(ROWS)} rows hold; {len(outcomes.of)} tests in {minutes:.1f} minutes")
    if given.write:
        said = f"{len(outcomes.of)} tests in {minutes:.0f} minutes"
        if before:
            said = f"{len(wanted)} of them when they were run again by themselves; {how_run(ROOT / given.write)}"
        write(ROOT / given.write, verdicts, datetime.date.today(), said)
    return code or int("fails" in verdicts)


if __name__ == "__main__":
    sys.exit(main())
