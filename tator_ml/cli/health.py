"""The verb ``healthy``: whether a part of Tator works, for health checks of containers and services."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(healthy)


def healthy(
    part: Annotated[str, typer.Argument(metavar="web|engine|worker", help="What is asked about.")],
) -> None:
    """Exit with 0 if a part works: the web process, the engines at TATOR_ENGINE_ADDRESS, or a worker of this host.

    Example: tator healthy web
    """
    look = LOOKS.get(part)
    if look is None:
        raise TatorError(f"There is no part {part}; take one of {', '.join(LOOKS)}.")
    typer.echo(look(Settings()))


def _web(settings: Settings) -> str:
    import httpx

    from tator_sdk.connect import basic_auth

    try:
        httpx.get(f"{settings.backend_url}/health", timeout=5, auth=basic_auth(settings)).raise_for_status()
    except httpx.HTTPError as error:
        raise TatorError(f"The web process does not answer at {settings.backend_url}: {error}") from error
    return "web answers"


def _engine(settings: Settings) -> str:
    from tator_ml.engine.client import EngineClient
    from tator_ml.learning.stores import image_store

    for address in settings.engine_addresses:
        client = EngineClient(settings, image_store(settings), address=address)
        status = client.status()
        client.close()
        if not status.ready:
            raise TatorError(status.error or "The engine is still loading its models.")
    return "engine is ready"


def _worker(settings: Settings) -> str:
    from rq.worker import BaseWorker

    from tator_ml.jobs.connection import reached

    mine = f"tator-{socket.gethostname()}-"
    with reached(settings) as connection:
        for key in BaseWorker.all_keys(connection=connection):
            name = key.removeprefix(BaseWorker.redis_worker_namespace_prefix)
            if name.startswith(mine) and connection.exists(key):  # the key of one that shows no life expires
                return f"{name} lives"
    raise TatorError("No worker of this host lives; start one with `tator worker`.")


LOOKS: Mapping[str, Callable[[Settings], str]] = {"web": _web, "engine": _engine, "worker": _worker}
