"""Threads of torch in the processes that ``tator`` starts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SHOWS = """
import ctypes, importlib.util
from pathlib import Path
from tator_sdk.cli import let_waiting_threads_sleep
let_waiting_threads_sleep()
(library,) = (Path(importlib.util.find_spec("torch").origin).parent / "lib").glob("libtorch_cpu.*")
ctypes.CDLL(str(library))
"""
"""Loads torch's library, which brings its OpenMP, without the three seconds of Python that ``import torch`` has."""


def _said(**variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    run = subprocess.run(
        [sys.executable, "-c", SHOWS], env={**environment, "OMP_DISPLAY_ENV": "verbose", **variables},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    if "GOMP_SPINCOUNT" not in run.stderr:
        pytest.skip("this torch has another OpenMP than libgomp, which shows its settings otherwise")
    return run.stderr


# libgomp shows the policy as passive where none was given, too, and then spins all the same
@pytest.mark.parametrize(
    ("given", "taken"), [({}, "GOMP_SPINCOUNT = '0'"), ({"OMP_WAIT_POLICY": "active"}, "OMP_WAIT_POLICY = 'ACTIVE'")]
)
def test_threads_sleep_where_they_wait_unless_somebody_wants_otherwise(given: dict[str, str], taken: str) -> None:
    assert taken in _said(**given)
