"""The engine process: loads the models, then answers calls from web and workers."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection
from typing import Any

from tator_ml.engine.engine import Engine
from tator_ml.engine.messages import EngineError, Status
from tator_ml.engine.wire import (
    ANSWER,
    ASK,
    CONCEPT_ASK,
    DETECT_ASK,
    DETECTED,
    EMBED_ASK,
    SEGMENT_ASK,
    STATUS,
    error_name,
    greet,
    listen,
    receive,
    send,
    shared_key,
)
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

log = logging.getLogger(__name__)


MOST_GREETINGS = 64
"""So many may be proving the key at once; one more, and the first of them is hung up on."""
PAUSE_SECONDS = 0.1
"""After a connection that could not be accepted: want of descriptors or memory passes."""


class EngineServer:
    """Accepts connections at once and answers as soon as the models are loaded."""

    def __init__(self, settings: Settings, load: Callable[[], Engine]) -> None:
        self._key = shared_key(settings)
        self._listener = listen(settings)
        self._load = load
        self._engine: Engine | None = None
        self._failure: str | None = None
        self._loaded = threading.Event()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._greetings: list[Connection] = []
        self._patience_seconds = settings.answer_timeout_seconds

    def serve(self) -> None:
        """Serve until the listener is closed; whatever comes over a connection ends that one alone."""
        threading.Thread(target=self._load_engine, name="tator-load", daemon=True).start()
        while True:
            try:
                connection = self._listener.accept()
            except OSError as error:
                if self._closing.wait(PAUSE_SECONDS):
                    return
                log.warning("a connection could not be accepted: %s", error)
                continue
            try:
                threading.Thread(target=self._converse, args=(connection,), daemon=True).start()
            except RuntimeError as error:  # the system has no more threads
                log.warning("a connection could not be served: %s", error)
                connection.close()

    def close(self) -> None:
        """Stop accepting and end the engine's thread."""
        self._closing.set()
        self._listener.close()
        if self._engine is not None:
            self._engine.close()

    def _load_engine(self) -> None:
        try:
            self._engine = self._load()
        except Exception as error:  # the reason must reach whoever asks, whatever it is
            log.exception("the models could not be loaded")
            self._failure = str(error).splitlines()[0] if str(error) else type(error).__name__
        self._loaded.set()

    def _converse(self, connection: Connection) -> None:
        with connection:
            try:
                with self._greeting(connection):
                    greet(connection, self._key)
            except (EOFError, ConnectionError):  # whoever looks whether somebody listens hangs up at once
                return
            except (AuthenticationError, AssertionError, OSError) as error:
                log.warning("refused a connection: %s", error)
                return
            while True:
                try:
                    message, frames = receive(connection)
                except (EOFError, OSError):
                    return
                except ValueError as error:
                    log.warning("unreadable frame: %s", error)
                    return
                answered: list[bytes] = []
                try:
                    reply = {"ok": self._call(message, frames, answered, connection)}
                except Exception as error:  # one bad call must not end the engine
                    if not isinstance(error, TatorError):
                        log.exception("call %s failed", message.get("call"))
                        error = EngineError("Tator's engine had an unexpected error; its log says more.")
                    reply, answered = {"error": error_name(error), "message": str(error)}, []
                try:
                    send(connection, reply, answered)
                except OSError:
                    return

    @contextmanager
    def _greeting(self, connection: Connection) -> Iterator[None]:
        """Count a connection among those that have proved nothing yet.

        Those who say nothing then keep nobody out, and hold no more than a few threads: who knows the key proves it
        in an instant.
        """
        with self._lock:
            self._greetings.append(connection)
            if len(self._greetings) > MOST_GREETINGS:
                _hang_up(self._greetings.pop(0))
        try:
            yield
        finally:
            with self._lock:
                if connection in self._greetings:
                    self._greetings.remove(connection)

    def _call(self, message: dict[str, Any], frames: list[bytes], answered: list[bytes], connection: Connection) -> Any:
        """Do what a message asks; returns the reply's JSON and appends its byte frames to ``answered``."""
        call = message.get("call")
        if call == "status":
            return STATUS.dump_python(self._status(), mode="json")
        engine = self._ready_engine()
        if call == "answer":
            return ANSWER.dump_python(engine.answer(ASK.validate_python(message["ask"])), mode="json")
        if call == "warm":
            return engine.warm(str(message["image"]), message.get("segmenter"), str(message.get("group", "")))
        if call == "keep":
            return engine.keep(str(message["image"]), message.get("segmenter"))
        if call == "drop_preloads":
            return engine.drop_preloads(frozenset(message["keep"]), message.get("group"))
        if call == "pin":
            return engine.pin([str(image) for image in message["images"]], float(message["seconds"]))
        if call == "set_budget":
            return engine.set_budget(int(message["budget_bytes"]))
        if call == "segmenter_version":
            return engine.segmenter_version(message.get("segmenter"))
        if call == "put_image" and len(frames) == 1:
            return engine.put_image(frames[0])
        if call == "put_head":
            return engine.put_head(dict(zip(message["files"], frames, strict=True)))
        if call == "encoder_version":
            return engine.encoder_version(str(message["encoder"]))
        if call == "embed":
            embedded = engine.embed(EMBED_ASK.validate_python(message["ask"]))
            answered.append(embedded.embeddings.tobytes())
            return {"encoder": embedded.encoder, "shape": list(embedded.embeddings.shape)}
        if call == "segment":
            about, bits = engine.segment(SEGMENT_ASK.validate_python(message["ask"])).dump()
            answered.append(bits)
            return about
        if call == "detect":
            # nothing comes before the reply: what can be read meanwhile is that the other end has gone
            detected = engine.detect(DETECT_ASK.validate_python(message["ask"]), abandoned=connection.poll)
            return DETECTED.dump_python(detected, mode="json")
        if call == "find_concepts":
            found = engine.find_concepts(CONCEPT_ASK.validate_python(message["ask"]), abandoned=connection.poll)
            about, bits = found.dump()
            answered.append(bits)
            return about
        if call == "stop_detecting":
            return engine.stop_detecting(str(message["task"]))
        raise EngineError(f"The engine knows no call {call!r}; web and engine are of different versions.")

    def _status(self) -> Status:
        if self._engine is not None:
            return self._engine.status()
        return Status(False, "", "", {}, (), 0, 0, self._failure)

    def _ready_engine(self) -> Engine:
        if not self._loaded.wait(self._patience_seconds):
            raise EngineError("Tator is still loading its models; try again in a moment.")
        if self._engine is None:
            raise EngineError(f"Tator's models could not be loaded: {self._failure}")
        return self._engine


def _hang_up(connection: Connection) -> None:
    """End what another thread waits for on a connection."""
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)
