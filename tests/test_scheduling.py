"""Which tests run where, and when: names that stand still in lists must still be those of files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from tests.scheduling import FIRST, SHARED, SharedServers, longest_first, scope_of

ROOT = Path(__file__).parents[1]


def test_what_is_listed_is_there() -> None:
    listed = [place for places in SHARED.values() for place in places] + [one for one in FIRST if one not in SHARED]
    assert [one for one in listed if not (ROOT / one).exists()] == []


def test_longest_first_and_each_in_its_own_order() -> None:
    nodes = ["tests/a.py::one", "tests/browser/b.py::one", "tests/a.py::two", "tests/jobs/test_worker.py::one"]
    nodes += ["tests/attack/test_browser.py::one", "tests/browser/b.py::two"]
    found = [one.nodeid for one in longest_first(SimpleNamespace(nodeid=one) for one in nodes)]
    assert found == [nodes[1], nodes[4], nodes[5], nodes[3], nodes[0], nodes[2]]
    assert [scope_of(one) for one in found[:4]] == ["browser", "browser", "browser", "tests/jobs/test_worker.py"]


def test_work_is_handed_out_in_that_order() -> None:
    option = SimpleNamespace(loadscopereorder=True, tx=["popen"], maxprocesses=None, numprocesses=1)
    config = SimpleNamespace(option=option, getvalue=lambda name: getattr(option, name))
    assert not SharedServers(config, None).config.option.loadscopereorder


def test_the_second_run_reads_every_file_that_wants_to_be_alone() -> None:
    """``make test`` names them: to collect all others takes it longer than their tests do."""
    mark = "pytest.mark." + "alone"
    alone = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py") if mark in path.read_text()}
    (line,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if '-m "alone and not faults"' in line]
    assert {word for word in line.split() if word.startswith("tests/")} == alone
