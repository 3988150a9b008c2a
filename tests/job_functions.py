"""What the tests' own jobs call, so that workers started by tests may call it too."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parent


def job_functions() -> list[str]:
    """Dotted names of the functions in files called ``work.py``, and of one that is nowhere."""
    found = ["tests.jobs.work.nowhere"]
    for path in sorted(TESTS.glob("*/work.py")):
        module = f"tests.{path.parent.name}.work"
        body = ast.parse(path.read_text()).body
        found += [f"{module}.{one.name}" for one in body if isinstance(one, ast.FunctionDef)]
    return found
