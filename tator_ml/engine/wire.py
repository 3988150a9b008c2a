"""Calls between web and engine: JSON over an authenticated connection, no pickle.

``multiprocessing.connection`` brings framing and the challenge that proves the shared key; only its
``send_bytes`` and ``recv_bytes`` are used, which pickle nothing. One request: a JSON object
``{"call", "args"}``; one reply: ``{"ok"}`` or ``{"error", "message"}``. A picture's bytes follow
their call as a frame of their own.
"""

from __future__ import annotations

import json
import os
import secrets
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tator_ml.engine.messages import Answer, Ask, Busy, EngineError, Status, UnknownImage
from tator_ml.images.decode import ImageError
from tator_sdk.settings import Settings

MAX_FRAME = 256 * 2**20

ASK = TypeAdapter(Ask)
ANSWER = TypeAdapter(Answer)
STATUS = TypeAdapter(Status)

ERRORS: dict[str, type[Exception]] = {
    "unknown_image": UnknownImage,
    "image": ImageError,
    "busy": Busy,
    "engine": EngineError,
}


def error_name(error: BaseException) -> str:
    """The most specific name on the wire for an error, ``engine`` for anything else."""
    for name in ("unknown_image", "image", "busy"):
        if isinstance(error, ERRORS[name]):
            return name
    return "engine"


def parse_address(address: str) -> str | tuple[str, int]:
    """``host:port`` → TCP address; anything else is a socket's path."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in address:
        return host, int(port)
    return address


def shared_key(settings: Settings) -> bytes:
    """The key both ends must know: the setting's, else one kept under home, made at first use.

    Raises:
        EngineError: the engine is asked to listen on TCP without a key of its own.
    """
    if settings.engine_key is not None:
        return settings.engine_key.get_secret_value().encode()
    if not isinstance(parse_address(settings.engine_socket), str):
        raise EngineError("An engine on TCP needs a key that web and engine share: set TATOR_ENGINE_KEY.")
    path = settings.home / "run" / "engine.key"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
    except FileExistsError:
        pass
    return path.read_text().encode()


def listen(settings: Settings) -> Listener:
    """Open the engine's listener; a socket file left by a crash is replaced."""
    address = parse_address(settings.engine_socket)
    if isinstance(address, str):
        Path(address).parent.mkdir(parents=True, exist_ok=True)
        Path(address).unlink(missing_ok=True)
    return Listener(address, backlog=64, authkey=shared_key(settings))


def connect(settings: Settings) -> Connection:
    """Connect to the engine.

    Raises:
        OSError: nobody listens there.
    """
    return Client(parse_address(settings.engine_socket), authkey=shared_key(settings))


def send(connection: Connection, message: dict[str, Any]) -> None:
    """Send one JSON object as a frame."""
    connection.send_bytes(json.dumps(message, separators=(",", ":")).encode())


def receive(connection: Connection) -> dict[str, Any]:
    """Receive one JSON object."""
    message = json.loads(connection.recv_bytes(MAX_FRAME))
    if not isinstance(message, dict):
        raise ValueError("a frame that is not an object")
    return message
