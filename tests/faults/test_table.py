"""The table is whole: every fault has its rows, every kind of job is killed, every test that it names exists."""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import get_args

from tator_ml.jobs import KINDS
from tests.faults.page import cells, rows_of
from tests.faults.row import Fault
from tests.faults.table import ROWS

ROOT = Path(__file__).parents[2]


@functools.cache
def defined_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    names = {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}
    for group in (one for one in tree.body if isinstance(one, ast.ClassDef)):
        names |= {f"{group.name}::{one.name}" for one in group.body if isinstance(one, ast.FunctionDef)}
    return frozenset(names)


def test_every_fault_has_a_row() -> None:
    assert {row.fault for row in ROWS} == set(get_args(Fault))


def test_every_kind_of_job_is_killed() -> None:
    assert {row.kind for row in ROWS if row.kind} == set(KINDS), "a new kind of job needs a test that kills it"


def test_every_test_exists() -> None:
    for row in ROWS:
        assert row.tests, row
        for test in row.tests:
            path, _, name = test.partition("::")
            assert name in defined_in(path), test


def test_every_row_says_all_and_fits_a_table() -> None:
    for row in ROWS:
        assert all(cell and "|" not in cell and "\n" not in cell for cell in cells(row)), row
    assert len({(row.fault, row.during) for row in ROWS}) == len(ROWS)


def test_the_page_has_these_rows_and_all_hold() -> None:
    found = rows_of(ROOT / "docs" / "reliability.md")
    assert [row for row, _ in found] == [cells(row) for row in ROWS], (
        "python -m tests.faults --write docs/reliability.md"
    )
    assert {verdict for _, verdict in found} == {"holds"}
