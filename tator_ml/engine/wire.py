"""Calls between web and engine: JSON over an authenticated connection, no pickle.

``multiprocessing.connection`` brings framing and the challenge that proves the shared key; only its
``send_bytes`` and ``recv_bytes`` are used, which pickle nothing. One request: a JSON object with ``call``, the
method's name, and what that takes beside it; one reply: ``{"ok"}`` or ``{"error", "message"}``. Bytes (a picture,
a head's files one after the other, embeddings) follow their call or reply as frames of their own, as many as
``frames`` says.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import struct
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection, Listener, answer_challenge, deliver_challenge
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
CONNECT_SECONDS = 3.0
GREETING_SECONDS = 10.0
KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}

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
        EngineError: an engine on TCP has no key of its own, or the one under home is empty.
    """
    if settings.engine_key is not None:
        return settings.engine_key.get_secret_value().encode()
    if not all(isinstance(parse_address(one), str) for one in settings.engine_addresses):
        raise EngineError("An engine on TCP needs a key that web and engine share: set TATOR_ENGINE_KEY.")
    path = settings.home / "run" / "engine.key"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _make_key(path)
    key = path.read_text().encode()
    if not key:  # which would prove nothing
        raise EngineError(f"The engine's key {path} is empty; remove the file, and restart Tator.")
    return key


def _make_key(path: Path) -> None:
    """Write a new key, whole or not at all; where several do it at once, the first one's stays."""
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=".engine-")  # only its owner can read it
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):
            os.link(part, path)
    finally:
        Path(part).unlink()


def listen(settings: Settings) -> Listener:
    """Open the engine's listener; a socket file left by a crash is replaced. Whom it accepts, :func:`greet` asks first.

    Raises:
        EngineError: the settings have several addresses, or an engine listens there.
    """
    if len(settings.engine_addresses) > 1:
        raise EngineError("An engine listens at one address: give it with `tator engine --address`.")
    address = parse_address(settings.engine_addresses[0])
    if isinstance(address, str):
        Path(address).parent.mkdir(parents=True, exist_ok=True)
        _make_room(address)
    return Listener(address, backlog=64)


def _make_room(path: str) -> None:
    """Remove a socket file on which nobody listens any more."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(CONNECT_SECONDS)
        try:
            line.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
            return
        except (BlockingIOError, TimeoutError):
            pass  # too busy to accept one more, or stopped: it listens all the same
    raise EngineError(f"An engine listens at {path} already; stop it, or give this one another --address.")


def greet(connection: Connection, key: bytes) -> None:
    """Have whoever connected prove the key, and prove it in turn; what :func:`connect` does, seen from the other end.

    Raises:
        AuthenticationError, AssertionError, EOFError, OSError: no proof came, or none in time.
    """
    limit(connection, GREETING_SECONDS)
    deliver_challenge(connection, key)
    answer_challenge(connection, key)
    limit(connection, 0.0)
    prepare_tcp(connection)


def connect(settings: Settings, address: str | None = None) -> Connection:
    """Connect to an engine.

    Args:
        settings: with the key, and where it listens.
        address: of one of several engines.

    Raises:
        OSError: nobody listens there.
    """
    place = parse_address(address or settings.engine_addresses[0])
    # what `Client` does, which would wait for ever for the greeting of a process that is stopped or stuck
    if isinstance(place, str):
        line = socket.socket(socket.AF_UNIX)
        # with a time-out of Python's own, a queue that is full for a moment would be an error at once
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _span(CONNECT_SECONDS))
        line.connect(place)
    else:
        line = socket.create_connection(place, CONNECT_SECONDS)
    line.setblocking(True)
    connection = Connection(line.detach())
    try:
        limit(connection, GREETING_SECONDS)
        key = shared_key(settings)
        answer_challenge(connection, key)
        deliver_challenge(connection, key)
        limit(connection, 0.0)
    except BaseException:
        connection.close()
        raise
    prepare_tcp(connection)
    return connection


def limit(connection: Connection, seconds: float) -> None:
    """Let each wait of a connection end with :class:`BlockingIOError` after some seconds; 0: never."""
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        for side in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            line.setsockopt(socket.SOL_SOCKET, side, _span(seconds))


def _span(seconds: float) -> bytes:
    """Seconds as the system's ``timeval``."""
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))


def prepare_tcp(connection: Connection) -> None:
    """Let small calls go at once, and a dead host be noticed within half a minute."""
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        if line.family not in (socket.AF_INET, socket.AF_INET6):
            return
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):  # not on every system
                line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


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
