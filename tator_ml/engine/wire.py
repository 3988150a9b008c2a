"""Calls between web and engine: JSON over an authenticated connection, no pickle.

``multiprocessing.connection`` brings framing and the challenge that proves the shared key; only its
``send_bytes`` and ``recv_bytes`` are used, which pickle nothing. One request: a JSON object
``{"call", "args"}``; one reply: ``{"ok"}`` or ``{"error", "message"}``. Bytes (a picture, a head's files one
after the other, embeddings) follow their call or reply as frames of their own, as many as ``frames`` says.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tator_ml.engine.concepts import ConceptAsk
from tator_ml.engine.head import HeadError
from tator_ml.engine.masks import SegmentAsk
from tator_ml.engine.messages import (
    Answer,
    Ask,
    Busy,
    DetectAsk,
    Detected,
    EmbedAsk,
    EngineError,
    OutOfMemory,
    Status,
    Stopped,
    Superseded,
    UnknownHead,
    UnknownImage,
)
from tator_ml.images.decode import ImageError
from tator_sdk.settings import Settings

MAX_FRAME = 256 * 2**20
MOST_FRAMES = 4

ASK = TypeAdapter(Ask)
ANSWER = TypeAdapter(Answer)
STATUS = TypeAdapter(Status)
EMBED_ASK = TypeAdapter(EmbedAsk)
SEGMENT_ASK = TypeAdapter(SegmentAsk)
DETECT_ASK = TypeAdapter(DetectAsk)
DETECTED = TypeAdapter(Detected)
CONCEPT_ASK = TypeAdapter(ConceptAsk)

ERRORS: dict[str, type[Exception]] = {
    "unknown_image": UnknownImage,
    "unknown_head": UnknownHead,
    "image": ImageError,
    "busy": Busy,
    "superseded": Superseded,
    "stopped": Stopped,
    "memory": OutOfMemory,
    "head": HeadError,
    "engine": EngineError,
}


def error_name(error: BaseException) -> str:
    """The most specific name on the wire for an error, ``engine`` for anything else."""
    return next(name for name, kind in ERRORS.items() if isinstance(error, kind) or name == "engine")


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


def send(connection: Connection, message: dict[str, Any], frames: Sequence[bytes] = ()) -> None:
    """Send one JSON object as a frame, and byte frames after it."""
    if frames:
        message = {**message, "frames": len(frames)}
    connection.send_bytes(json.dumps(message, separators=(",", ":")).encode())
    for frame in frames:
        connection.send_bytes(frame)


def receive(connection: Connection) -> tuple[dict[str, Any], list[bytes]]:
    """Receive one JSON object and the byte frames that follow it.

    Raises:
        ValueError: it is not an object, or announces more frames than a call has.
    """
    message = json.loads(connection.recv_bytes(MAX_FRAME))
    if not isinstance(message, dict):
        raise ValueError("a frame that is not an object")
    count = message.pop("frames", 0)
    if not isinstance(count, int) or not 0 <= count <= MOST_FRAMES:
        raise ValueError("more frames than a call has")
    return message, [connection.recv_bytes(MAX_FRAME) for _ in range(count)]
