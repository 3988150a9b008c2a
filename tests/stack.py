"""The whole stack for end-to-end tests: started once, in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.environment import ENVIRONMENT
from demo.stack import DemoSettings, DemoStack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoStack]:
    """A real Label Studio with a connected project of generated scenes."""
    if not (ENVIRONMENT / "bin" / "label-studio").exists():
        pytest.skip("Label Studio is not installed: `make test` builds its environment")
    home: Path = tmp_path_factory.mktemp("stack")
    with DemoStack(DemoSettings(home, studio_port=18080, tator={"port": 19090}), print) as running:
        yield running
