"""The web's and the workers' side of the engine."""

from __future__ import annotations

import logging
import queue
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection
from typing import Any, Protocol

from tator_ml.engine.messages import Answer, Ask, EngineError, Status, UnknownImage
from tator_ml.engine.wire import ANSWER, ASK, ERRORS, STATUS, connect, receive, send
from tator_ml.images.store import ImageStore
from tator_sdk.settings import Settings

log = logging.getLogger(__name__)


class EngineAway(EngineError):
    """Nobody answers at the engine's address."""


class Answers(Protocol):
    """What the backend needs of an engine; the in-process class has it too."""

    def answer(self, ask: Ask) -> Answer:
        """Answer an annotator's prompts."""
        ...

    def warm(self, image: str) -> bool:
        """Make a picture ready ahead of its first prompt."""
        ...

    def status(self) -> Status:
        """What the engine is doing now."""
        ...


class EngineClient:
    """Calls an engine process; connections are kept and shared between threads."""

    def __init__(self, settings: Settings, images: ImageStore, connections: int = 32) -> None:
        self._settings = settings
        self._images = images
        self._idle: queue.LifoQueue[Connection] = queue.LifoQueue(connections)

    def answer(self, ask: Ask) -> Answer:
        """Answer an annotator's prompts.

        Raises:
            EngineError: with a sentence for the annotator.
            ImageError: the picture cannot be decoded.
        """
        message = {"call": "answer", "ask": ASK.dump_python(ask, mode="json")}
        try:
            reply = self._call(message)
        except UnknownImage:  # an engine on another host has a store of its own
            self._send_image(ask.image)
            reply = self._call(message)
        return ANSWER.validate_python(reply)

    def warm(self, image: str) -> bool:
        """Ask for a picture to be made ready; never waits for it."""
        return bool(self._call({"call": "warm", "image": image}))

    def status(self) -> Status:
        """What the engine is doing now."""
        return STATUS.validate_python(self._call({"call": "status"}))

    def close(self) -> None:
        """Close idle connections."""
        while not self._idle.empty():
            self._idle.get_nowait().close()

    def _send_image(self, image: str) -> None:
        data = self._images.get(image)
        if data is None:
            raise EngineError("The picture was dropped from the store meanwhile; open the task again.")
        self._call({"call": "put_image"}, data)

    def _call(self, message: dict[str, Any], picture: bytes | None = None) -> Any:
        for fresh in (False, True):  # an idle connection may have ended with the last engine
            connection = self._connection(fresh)
            try:
                send(connection, message)
                if picture is not None:
                    connection.send_bytes(picture)
                reply = receive(connection)
            except (EOFError, OSError, ValueError) as error:
                connection.close()
                if fresh:
                    raise EngineAway(
                        "Tator's engine ended while it worked; it is started again by itself, or with `tator up`."
                    ) from error
                continue
            self._give_back(connection)
            if "error" in reply:
                raise ERRORS.get(reply["error"], EngineError)(reply["message"])
            return reply["ok"]
        raise EngineAway("Tator's engine does not answer.")

    def _connection(self, fresh: bool) -> Connection:
        if not fresh:
            try:
                return self._idle.get_nowait()
            except queue.Empty:
                pass
        try:
            return connect(self._settings)
        except (OSError, EOFError, AuthenticationError) as error:
            raise EngineAway("Tator's engine is not running; start it with `tator up`.") from error

    def _give_back(self, connection: Connection) -> None:
        try:
            self._idle.put_nowait(connection)
        except queue.Full:
            connection.close()
