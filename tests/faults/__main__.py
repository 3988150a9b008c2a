"""Run every row of the table, and say which hold: ``python -m tests.faults``.

With ``--write PAGE`` the table goes into the page, between its markers.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from pathlib import Path

import pytest

from tests.faults.page import write
from tests.faults.table import ROWS

ROOT = Path(__file__).parents[2]


class Outcomes:
    """What came of each test, by its node id without parameters."""

    def __init__(self) -> None:
        self.of: dict[str, set[str]] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keep what the table names, and what is marked as a fault."""
        wanted = {test for row in ROWS for test in row.tests}
        kept = [one for one in items if _bare(one.nodeid) in wanted or one.get_closest_marker("faults")]
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
    parser.add_argument("pytest", nargs="*", help="further options of pytest, after --")
    given = parser.parse_args()
    outcomes, begun = Outcomes(), time.monotonic()
    options = ["-q", "-p", "no:cacheprovider", "tests", *given.pytest]
    code = int(pytest.main(options, plugins=[outcomes]))
    minutes = (time.monotonic() - begun) / 60
    verdicts = [outcomes.of_tests(row.tests) for row in ROWS]
    for row, verdict in zip(ROWS, verdicts, strict=True):
        print(f"{verdict:8} {row.fault}: {row.during}")
    tests = sum(map(len, outcomes.of.values()))
    print(f"{verdicts.count('holds')} of {len(ROWS)} rows hold; {tests} tests in {minutes:.1f} minutes")
    if given.write:
        write(ROOT / given.write, verdicts, datetime.date.today(), len(outcomes.of), minutes)
    return code or int("fails" in verdicts)


if __name__ == "__main__":
    sys.exit(main())
