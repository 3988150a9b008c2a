"""Threads of torch in the processes that ``tator`` starts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SHOWS = "from tator_sdk.cli import let_waiting_threads_sleep as let; let(); import torch"


def _said(**variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    run = subprocess.run(
        [sys.executable, "-c", SHOWS], env={**environment, "OMP_DISPLAY_ENV": "true", **variables},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    if "OMP_WAIT_POLICY" not in run.stderr:
        pytest.skip("this torch has another OpenMP than libgomp, which shows its settings otherwise")
    return run.stderr


@pytest.mark.parametrize(("given", "taken"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "ACTIVE")])
def test_threads_sleep_where_they_wait_unless_somebody_wants_otherwise(given: dict[str, str], taken: str) -> None:
    assert f"OMP_WAIT_POLICY = '{taken}'" in _said(**given)
