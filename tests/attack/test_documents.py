"""Every test that docs/security.md names exists, and every line of its tables names one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "security.md"


def rows() -> list[list[str]]:
    """The lines of tables that have a column of tests."""
    found: list[list[str]] = []
    tested = False
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            tested = False
        elif cells[-1] == "test":
            tested = True
        elif tested and not set(line) <= set("|- "):
            found.append(cells)
    return found


def test_every_line_names_tests_that_exist() -> None:
    assert len(rows()) > 35
    for cells in rows():
        assert len(cells) == 3 and all(cells), cells
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", cells[2])
        assert named, cells[0]
        for file, name in named:
            functions = {
                one.name for one in ast.parse((TESTS / file).read_text()).body if isinstance(one, ast.FunctionDef)
            }
            assert name in functions, f"{file}::{name}"


def test_every_attack_is_in_the_tables() -> None:
    text = PAGE.read_text()
    left_out = [
        f"{path.name}::{one.name}"
        for path in sorted((TESTS / "attack").glob("test_*.py"))
        for one in ast.parse(path.read_text()).body
        if isinstance(one, ast.FunctionDef) and one.name.startswith("test_") and one.name not in text
    ]
    known = {"test_documents.py", "test_audit.py"}
    assert [one for one in left_out if one.split("::")[0] not in known] == []
