"""The web's and the workers' side of the engine."""

from __future__ import annotations

import queue
from collections.abc import Callable, Collection, Mapping, Sequence
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

from tator_ml.engine.concepts import ConceptAsk, ConceptsFound
from tator_ml.engine.masks import SegmentAsk, Segmented
from tator_ml.engine.messages import (
    Answer,
    Ask,
    DetectAsk,
    Detected,
    EmbedAsk,
    Embedded,
    EngineError,
    Status,
    UnknownHead,
    UnknownImage,
)
from tator_ml.engine.wire import (
    ANSWER,
    ASK,
    CONCEPT_ASK,
    DETECT_ASK,
    DETECTED,
    EMBED_ASK,
    ERRORS,
    SEGMENT_ASK,
    STATUS,
    connect,
    limit,
    receive,
    send,
)
from tator_ml.images.store import ImageStore
from tator_sdk.settings import Settings

Reply = tuple[Any, list[bytes]]
"""JSON value and byte frames."""


class EngineAway(EngineError):
    """Nobody answers at the engine's address."""


class Answers(Protocol):
    """What the backend needs of an engine; the in-process class has it too."""

    def answer(self, ask: Ask) -> Answer:
        """Answer an annotator's prompts."""
        ...

    def warm(self, image: str, segmenter: str | None = None, group: str = "") -> bool:
        """Make a picture ready ahead of its first prompt, without waiting."""
        ...

    def drop_preloads(self, keep: Collection[str], group: str | None = None) -> int:
        """Drop preloads that have not started, but those of these pictures."""
        ...

    def keep(self, image: str, segmenter: str | None = None) -> bool:
        """Have a picture's embedding on disk; waits, and says whether it was encoded now."""
        ...

    def pin(self, images: Collection[str], seconds: float) -> None:
        """Let pictures leave memory last of all for some time."""
        ...

    def set_budget(self, budget_bytes: int) -> None:
        """Change the memory for warm pictures."""
        ...

    def segmenter_version(self, name: str | None = None) -> str:
        """Version of the segmenter of a name, loaded if need be."""
        ...

    def embed(self, ask: EmbedAsk) -> Embedded:
        """Embed boxes in the batch lane."""
        ...

    def detect(self, ask: DetectAsk) -> Detected:
        """Ask a vision-language model in words."""
        ...

    def find_concepts(self, ask: ConceptAsk) -> ConceptsFound:
        """Find every instance of phrases and exemplars."""
        ...

    def stop_detecting(self, task: str) -> int:
        """Take back all questions of a task, in words and about concepts."""
        ...

    def encoder_version(self, name: str) -> str:
        """Version of the encoder of a name."""
        ...

    def status(self) -> Status:
        """What the engine is doing now."""
        ...


PROMPT = {"answer", "status", "warm", "drop_preloads", "pin", "set_budget", "stop_detecting", "put_image"}
"""Calls that an engine which works answers in time, in lanes other than ``batch``; others last as long as their work
does, as loading the encoder of a head that is put there."""
GRACE_SECONDS = 5.0

ReadHead = Callable[[str], Mapping[str, bytes]]
"""A head's version → its files by name."""


class EngineClient:
    """Calls an engine process; connections are kept and shared between threads."""

    def __init__(
        self,
        settings: Settings,
        images: ImageStore,
        read_head: ReadHead | None = None,
        connections: int = 32,
        address: str | None = None,
    ) -> None:
        """Prepare; the engine is connected to at the first call.

        Args:
            settings: where the engine listens.
            images: pictures by content hash, for an engine that does not have one.
            read_head: heads by version, likewise.
            connections: how many idle ones are kept.
            address: where it listens, of several that the settings have.
        """
        self._settings = settings
        self._address = address
        self._images = images
        self._read_head = read_head
        self._idle: queue.LifoQueue[Connection] = queue.LifoQueue(connections)

    def answer(self, ask: Ask) -> Answer:
        """Answer an annotator's prompts.

        Raises:
            EngineError: with a sentence for the annotator.
            ImageError: the picture cannot be decoded.
        """
        message = {"call": "answer", "ask": ASK.dump_python(ask, mode="json")}
        reply, _ = self._supplied(message, [ask.image], ask.head)
        return ANSWER.validate_python(reply)

    def embed(self, ask: EmbedAsk) -> Embedded:
        """Embed boxes in the batch lane.

        Raises:
            EngineError: with a sentence.
            ImageError: a picture cannot be decoded.
        """
        message = {"call": "embed", "ask": EMBED_ASK.dump_python(ask, mode="json")}
        reply, frames = self._supplied(message, [item.image for item in ask.items])
        embeddings = np.frombuffer(frames[0], np.float16).reshape(reply["shape"])
        return Embedded(str(reply["encoder"]), embeddings)

    def segment(self, ask: SegmentAsk) -> Segmented:
        """Segment all boxes of a picture in the batch lane.

        Raises:
            EngineError: with a sentence.
            ImageError: the picture cannot be decoded.
        """
        message = {"call": "segment", "ask": SEGMENT_ASK.dump_python(ask, mode="json")}
        about, frames = self._supplied(message, [ask.image])
        return Segmented.load(about, frames[0])

    def detect(self, ask: DetectAsk) -> Detected:
        """Ask a vision-language model in words; where this process ends meanwhile, so does the model.

        Raises:
            Superseded: a newer question of the task is answered in this one's place.
            Stopped: it was taken back.
            EngineError: with a sentence.
            ImageError: the picture cannot be decoded.
        """
        message = {"call": "detect", "ask": DETECT_ASK.dump_python(ask, mode="json")}
        return DETECTED.validate_python(self._supplied(message, [ask.image])[0])

    def find_concepts(self, ask: ConceptAsk) -> ConceptsFound:
        """Find every instance of phrases and exemplars; where this process ends meanwhile, so does the model.

        Raises:
            Superseded: a newer question of the task is answered in this one's place.
            Stopped: it was taken back.
            EngineError: with a sentence.
            ImageError: the picture cannot be decoded.
        """
        message = {"call": "find_concepts", "ask": CONCEPT_ASK.dump_python(ask, mode="json")}
        about, frames = self._supplied(message, [ask.image])
        return ConceptsFound.load(about, frames[0])

    def stop_detecting(self, task: str) -> int:
        """Take back all questions of a task, in words and about concepts; returns how many."""
        return int(self._call({"call": "stop_detecting", "task": task})[0])

    def encoder_version(self, name: str) -> str:
        """Version of the encoder of a name, which the engine loads if need be."""
        return str(self._call({"call": "encoder_version", "encoder": name})[0])

    def warm(self, image: str, segmenter: str | None = None, group: str = "") -> bool:
        """Ask for a picture to be made ready; never waits for it.

        Args:
            image: content hash.
            segmenter: as in :class:`Ask`.
            group: preloads of one group can be dropped together.

        Returns:
            False when too many wait already.
        """
        return bool(self._call({"call": "warm", "image": image, "segmenter": segmenter, "group": group})[0])

    def drop_preloads(self, keep: Collection[str], group: str | None = None) -> int:
        """Drop preloads that have not started, of one group or of all; returns how many.

        Args:
            keep: content hashes of pictures that stay wanted.
            group: as given to :meth:`warm`; None for all.
        """
        return int(self._call({"call": "drop_preloads", "keep": sorted(keep), "group": group})[0])

    def keep(self, image: str, segmenter: str | None = None) -> bool:
        """Have a picture's embedding on the engine's disk; waits in the batch lane.

        Returns:
            Whether it was encoded now; False when it was there.

        Raises:
            EngineError: with a sentence.
            ImageError: the picture cannot be decoded.
        """
        return bool(self._supplied({"call": "keep", "image": image, "segmenter": segmenter}, [image])[0])

    def pin(self, images: Collection[str], seconds: float) -> None:
        """Let pictures leave memory last of all for some time, as if each had been clicked on."""
        self._call({"call": "pin", "images": sorted(images), "seconds": seconds})

    def set_budget(self, budget_bytes: int) -> None:
        """Change the memory for warm pictures; what is too much goes at once."""
        self._call({"call": "set_budget", "budget_bytes": budget_bytes})

    def segmenter_version(self, name: str | None = None) -> str:
        """Version of the segmenter of a name, which the engine loads if need be.

        Raises:
            EngineError: it cannot be loaded; the message says what to do.
        """
        return str(self._call({"call": "segmenter_version", "segmenter": name})[0])

    def status(self) -> Status:
        """What the engine is doing now."""
        return STATUS.validate_python(self._call({"call": "status"})[0])

    def close(self) -> None:
        """Close idle connections."""
        while not self._idle.empty():
            self._idle.get_nowait().close()

    def _supplied(self, message: dict[str, Any], images: Sequence[str], head: str | None = None) -> Reply:
        """Call, and where the engine lacks pictures or a head, send them and call again."""
        for _ in range(2):
            try:
                return self._call(message)
            except UnknownImage:  # an engine on another host has a store of its own
                for image in images:
                    self._send_image(image)
            except UnknownHead:
                self._send_head(head or "")
        return self._call(message)

    def _send_head(self, version: str) -> None:
        if self._read_head is None:
            raise EngineError(f"The head {version} is not known to this process.")
        files = self._read_head(version)
        self._call({"call": "put_head", "files": list(files)}, list(files.values()))

    def _send_image(self, image: str) -> None:
        data = self._images.get(image)
        if data is None:
            raise EngineError("The picture was dropped from the store meanwhile; open the task again.")
        self._call({"call": "put_image"}, [data])

    def _call(self, message: dict[str, Any], frames: Sequence[bytes] = ()) -> Reply:
        prompt = message["call"] in PROMPT and message.get("ask", {}).get("lane") != "batch"
        seconds = self._settings.answer_timeout_seconds + GRACE_SECONDS if prompt else 0.0
        for fresh in (False, True):  # an idle connection may have ended with the last engine
            connection = self._connection(fresh)
            try:
                limit(connection, seconds)
                send(connection, message, frames)
                reply, answered = receive(connection)
            except BlockingIOError as error:
                connection.close()
                raise EngineAway(
                    f"Tator's engine has not answered for {seconds:.0f} s; if that goes on, end its process, and "
                    "`tator up` starts it again."
                ) from error
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
            return reply["ok"], answered
        raise EngineAway("Tator's engine does not answer.")

    def _connection(self, fresh: bool) -> Connection:
        if not fresh:
            try:
                return self._idle.get_nowait()
            except queue.Empty:
                pass
        try:
            return connect(self._settings, self._address)
        except BlockingIOError as error:
            raise EngineAway("Tator's engine does not answer; if that goes on, end its process.") from error
        except (OSError, EOFError, AuthenticationError) as error:
            raise EngineAway("Tator's engine is not running; start it with `tator up`.") from error

    def _give_back(self, connection: Connection) -> None:
        try:
            self._idle.put_nowait(connection)
        except queue.Full:
            connection.close()
