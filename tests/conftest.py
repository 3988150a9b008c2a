"""What many tests share."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["tests.stack", "tests.jobs.fixtures", "tests.cli.fixtures", "tests.browser.fixtures"]

SHARED = Path(__file__).parents[2] / "shared"
PAYLOADS = Path(__file__).parent / "payloads"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist loadfile``, keep what shares servers in one process as well."""
    if config.getvalue("dist") != "loadfile":
        return None
    from tests.scheduling import SharedServers

    return SharedServers(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where test processes share the work, what takes longest is begun first."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        from tests.scheduling import longest_first

        items[:] = longest_first(items)


def pytest_collection_finish() -> None:
    """Leave what the imports made out of every later collection: giving models back collects, 0.3 s each time else."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let libraries look at the end for what they think they leaked."""
    gc.unfreeze()


@pytest.fixture(scope="module", autouse=True)
def _left_out() -> Iterator[None]:
    """The same for what the tests of a file made and others go on with, such as servers and models of the session."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the developer's own environment or folder reaches a test."""
    for name in list(os.environ):
        if name.startswith("TATOR_") or name in {"REDIS_URL", "LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("TATOR_HOME", str(tmp_path / "home"))


@pytest.fixture
def payload() -> Any:
    """A captured request by name, whole: method, path, headers, body."""

    def read(name: str) -> dict[str, Any]:
        return json.loads((PAYLOADS / f"{name}.json").read_text())  # type: ignore[no-any-return]

    return read


@pytest.fixture
def shared_fixtures() -> Iterator[Path]:
    """The shared fixtures; skips where they are not beside the checkout."""
    if not (SHARED / "fixtures").exists():
        pytest.skip("the shared fixtures are not beside the checkout")
    yield SHARED / "fixtures"
