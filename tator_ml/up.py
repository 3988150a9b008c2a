"""The parts of a running Tator, in the order they are started."""

from __future__ import annotations

import json
import sys

import httpx

from tator_ml.engine.client import EngineClient
from tator_ml.engine.messages import EngineError
from tator_ml.jobs import connect_redis
from tator_ml.jobs.connection import names_of_workers
from tator_ml.learning.stores import image_store
from tator_ml.running.processes import Part, ProcessError, Supervisor, free_port
from tator_ml.running.redis_server import redis_answers, redis_command, redis_url
from tator_sdk.connect import basic_auth
from tator_sdk.files import private_folder
from tator_sdk.settings import Settings
from tator_sdk.settings_list import ORIGINS, origins


def start_parts(settings: Settings, parts: Supervisor) -> Settings:
    """Start everything, each part ready before the next.

    Returns:
        The settings with the port that was really taken.

    Raises:
        ProcessError: a part did not start; the message carries the end of its log.
    """
    start_back(settings, parts)
    return start_front(settings, parts)


def start_back(settings: Settings, parts: Supervisor) -> None:
    """Start Redis, unless another is set, and the engine.

    Raises:
        ProcessError: as :func:`start_parts`.
    """
    private_folder(settings.home)
    if settings.redis_url is None:
        parts.start(Part("redis", redis_command(settings), lambda: redis_answers(settings), 20))
    elif not redis_answers(settings):
        raise ProcessError(f"The Redis at {redis_url(settings)} does not answer; start it or unset TATOR_REDIS_URL.")
    engine = EngineClient(settings, image_store(settings))
    environment = _environment(settings)
    try:
        parts.start(Part("engine", tator("engine"), lambda: engine_ready(engine), 300, environment=environment))
    finally:
        engine.close()


def start_front(settings: Settings, parts: Supervisor) -> Settings:
    """Start the web process and a worker.

    Returns:
        The settings with the port that was really taken.

    Raises:
        ProcessError: as :func:`start_parts`.
    """
    # the port is looked for only now: an earlier run's leftover web process may still have held it
    parts.clear_leftover("web")
    settings = settings.model_copy(update={"port": _port(settings)})
    environment = _environment(settings)
    parts.start(Part("web", tator("serve"), lambda: _web_ready(settings), 60, environment=environment))
    before = _workers(settings)
    parts.start(Part("worker", tator("worker"), lambda: bool(_workers(settings) - before), 60, environment=environment))
    return settings


def _environment(settings: Settings) -> dict[str, str]:
    # the hub's own libraries (transformers, timm, open_clip) are told as well
    offline = {"HF_HUB_OFFLINE": "1"} if settings.offline else {}
    told = {ORIGINS: json.dumps(origins(settings))}
    return {**settings.environment(), "TATOR_REDIS_URL": redis_url(settings), **offline, **told}


def tator(verb: str) -> list[str]:
    """The command line of a verb in this environment."""
    return [sys.executable, "-m", "tator_sdk", verb]


def _port(settings: Settings) -> int:
    return free_port(settings.port, "127.0.0.1" if settings.host == "localhost" else settings.host)


def engine_ready(engine: EngineClient) -> bool:
    """Whether an engine answers and has its models.

    Raises:
        ProcessError: they cannot be loaded.
    """
    try:
        status = engine.status()
    except EngineError:
        return False
    if status.error:
        raise ProcessError(status.error)
    return status.ready


def _web_ready(settings: Settings) -> bool:
    try:
        return httpx.get(f"{settings.backend_url}/health", timeout=2, auth=basic_auth(settings)).is_success
    except httpx.HTTPError:
        return False


def _workers(settings: Settings) -> frozenset[str]:
    with connect_redis(settings) as connection:
        return names_of_workers(connection)
