"""A Redis for all tests of a process, and what those of jobs begin with.

A plugin (tests/conftest.py names it): where a test imported a fixture of the session by name, it got one of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tator_ml.jobs import connect_redis
from tator_sdk.settings import Settings
from tests.jobs.conftest import Jobs, serving_redis


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(home=tmp_path_factory.mktemp("r"), redis_url=None)
    with serving_redis(settings):
        yield f"unix://{settings.home / 'run' / 'redis.sock'}"


@pytest.fixture
def jobs(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("TATOR_REDIS_URL", redis_url)
    settings = Settings()
    connection = connect_redis(settings)
    connection.flushall()
    running = Jobs(settings, connection)
    try:
        yield running
    finally:
        running.kill_workers()
        connection.flushall()  # others have the same Redis
        connection.close()
