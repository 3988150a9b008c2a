"""The parts of a running Tator, in the order they are started."""

from __future__ import annotations

import sys

import httpx

from tator_ml.engine.client import EngineClient
from tator_ml.engine.messages import EngineError
from tator_ml.images.store import ImageStore
from tator_ml.jobs import connect_redis
from tator_ml.processes import Part, ProcessError, Supervisor, free_port
from tator_ml.redis_server import redis_answers, redis_command, redis_url
from tator_sdk.settings import LOOPBACK_HOSTS, Settings


def start_parts(settings: Settings, parts: Supervisor) -> Settings:
    """Start Redis (unless another is set), engine, web and worker, each ready before the next.

    Returns:
        The settings with the port that was really taken.

    Raises:
        ProcessError: a part did not start; the message carries the end of its log.
    """
    engine = EngineClient(settings, ImageStore(settings.home / "images", settings.image_store_bytes))
    environment = {"TATOR_HOME": str(settings.home)}
    if settings.redis_url is None:
        parts.start(Part("redis", redis_command(settings), lambda: redis_answers(settings), 20))
    elif not redis_answers(settings):
        raise ProcessError(f"The Redis at {redis_url(settings)} does not answer; start it or unset TATOR_REDIS_URL.")
    environment["TATOR_REDIS_URL"] = redis_url(settings)
    parts.start(Part("engine", _tator("engine"), lambda: _engine_ready(engine), 300, environment=environment))
    # the port is looked for only now: an earlier run's leftover web process may still have held it
    settings = settings.model_copy(update={"port": _port(settings)})
    web = {**environment, "TATOR_PORT": str(settings.port), "TATOR_HOST": settings.host}
    parts.start(Part("web", _tator("serve"), lambda: _web_ready(settings), 30, environment=web))
    before = _workers(settings)
    parts.start(Part("worker", _tator("worker"), lambda: _workers(settings) > before, 30, environment=environment))
    engine.close()
    return settings


def _tator(verb: str) -> list[str]:
    return [sys.executable, "-m", "tator_sdk", verb]


def _port(settings: Settings) -> int:
    port = free_port(settings.port, "127.0.0.1" if settings.host in LOOPBACK_HOSTS else settings.host)
    return port


def _engine_ready(engine: EngineClient) -> bool:
    try:
        status = engine.status()
    except EngineError:
        return False
    if status.error:
        raise ProcessError(status.error)
    return status.ready


def _web_ready(settings: Settings) -> bool:
    try:
        return httpx.get(f"{settings.backend_url}/health", timeout=2, auth=_auth(settings)).is_success
    except httpx.HTTPError:
        return False


def _auth(settings: Settings) -> httpx.BasicAuth | None:
    if settings.password is None:
        return None
    return httpx.BasicAuth(settings.username, settings.password.get_secret_value())


def _workers(settings: Settings) -> int:
    from rq.worker import BaseWorker

    with connect_redis(settings) as connection:
        return BaseWorker.count(connection=connection)
