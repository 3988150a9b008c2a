"""The dashboard over a real Redis and real records, without models: an engine that only says how it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from flask.testing import FlaskClient
from jinja2.bccache import Bucket, BytecodeCache

from tator_ml.engine.client import Answers
from tator_ml.engine.messages import Status, WarmStatus
from tator_ml.images.fetch import ImageFetcher
from tator_ml.jobs import JobRecord, connect_redis, lifecycle, start
from tator_ml.jobs.order import Ending
from tator_ml.jobs.owner import Owner
from tator_ml.last_hour import Latency
from tator_ml.learning.stores import image_store
from tator_ml.projects import Projects
from tator_ml.services import Services
from tator_ml.suggestions import Suggestions
from tator_ml.web.app import create_app
from tator_sdk.settings import Settings


class Compiled(BytecodeCache):
    """Compiled templates in memory: tests have applications of their own, and compiling takes longer than testing."""

    def __init__(self) -> None:
        self._code: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self._code:
            bucket.bytecode_from_string(self._code[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._code[bucket.key] = bucket.bytecode_to_string()


TEMPLATES = Compiled()


@dataclass
class StillEngine:
    """The caller's own engine: says how it is, and keeps the budget it is given."""

    now: Status = field(
        default_factory=lambda: Status(
            True, "cpu", "starter+head-1", {"click": 0, "preload": 2, "words": 0, "batch": 1},
            (WarmStatus("a" * 64, 3_000_000, "starter", True),), 512 * 2**20, 7, segmenter="starter", head="head-1",
            oldest_seconds={"click": 0.0, "preload": 1.5, "words": 0.0, "batch": 12.0}, process_bytes=9 * 10**8,
            latencies={"click": Latency(40, 0.031, 0.055, 0.2)},
        )
    )  # fmt: skip

    def status(self) -> Status:
        return self.now

    def set_budget(self, budget_bytes: int) -> None:
        self.now = replace(self.now, budget_bytes=budget_bytes)


@dataclass
class Site:
    """The application and what it stands on."""

    client: FlaskClient
    settings: Settings
    services: Services
    engine: StillEngine
    connection: redis.Redis

    def page(self, address: str, status: int = 200) -> str:
        """The text of a page."""
        answer = self.client.get(address)
        assert answer.status_code == status, answer.text
        return answer.text

    def job(self, kind: str = "clip", project: int | None = 1, **how: Any) -> JobRecord:
        """A job that waits; no worker runs."""
        request = how.pop("request", {"project": project})
        return start(self.settings, kind, request, project=project, title=how.pop("title", f"train {kind}"), **how)

    def begun(self, job: JobRecord) -> int:
        """Have it run, and say in which attempt."""
        attempt = lifecycle.begin(self.connection, job.id, Owner.current())
        assert attempt is not None
        return attempt

    def ended(self, job: JobRecord, ending: Ending) -> None:
        """Have it run and end."""
        assert lifecycle.finish(self.connection, job.id, self.begun(job), ending)


def build_site(settings: Settings, **more: Any) -> Site:
    """An application in this process."""
    engine = StillEngine()
    services = Services(
        settings=settings,
        engine=cast(Answers, engine),
        images=ImageFetcher(settings, image_store(settings)),
        projects=Projects(settings.home / "projects"),
        suggestions=Suggestions(settings.home / "suggestions.sqlite"),
        **more,
    )
    app = create_app(settings, services)
    app.jinja_env.bytecode_cache = TEMPLATES
    app.config["WTF_CSRF_ENABLED"] = False  # whether forms are guarded is asked in test_access.py
    app.extensions["tator_watch"].look()
    return Site(app.test_client(), settings, services, engine, connect_redis(settings))


def close_site(site: Site) -> None:
    """Give everything back."""
    site.client.application.extensions["tator_watch"].stop()
    site.services.close()
    site.connection.flushall()
    site.connection.close()


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    return Settings(home=tmp_path, redis_url=redis_url, label_studio_url="http://127.0.0.1:9", label_studio_api_key="x")


@pytest.fixture
def site(settings: Settings) -> Iterator[Site]:
    """An open dashboard on loopback."""
    made = build_site(settings)
    yield made
    close_site(made)
