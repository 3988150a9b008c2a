"""The whole stack for end-to-end tests: started once, in a folder of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.environment import ENVIRONMENT
from demo.stack import DemoSettings, DemoStack
from tests.job_functions import job_functions

# Test processes that run side by side (pytest-xdist) each have a stack of their own.
BESIDE = 10 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoStack]:
    """A real Label Studio with a connected project of generated scenes."""
    if not (ENVIRONMENT / "bin" / "label-studio").exists():
        pytest.skip("Label Studio is not installed: `make test` builds its environment")
    home: Path = tmp_path_factory.mktemp("stack")
    # behind other test processes, jobs would never be done
    tator = {"port": 19090 + BESIDE, "job_functions": tuple(job_functions()), "job_niceness": 0}
    wanted = DemoSettings(home, scenes=12, studio_port=18080 + BESIDE, tator=tator)
    with DemoStack(wanted, print) as running:
        yield running
