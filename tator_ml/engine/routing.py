"""Several engines as one: each picture has its own by a hash of its content, and the next one while that is away.

Rendezvous hashing (Thaler and Ravishankar, 1998): every caller finds the same engine for a picture without asking
anybody, and where one is added or away, only its own pictures move.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from tator_ml.engine.client import EngineAway, EngineClient, ReadHead
from tator_ml.engine.concepts import ConceptAsk, ConceptsFound
from tator_ml.engine.masks import SegmentAsk, Segmented
from tator_ml.engine.merging import merge
from tator_ml.engine.messages import (
    Answer,
    Ask,
    DetectAsk,
    Detected,
    EmbedAsk,
    Embedded,
    EngineError,
    EngineStatus,
    Status,
)
from tator_ml.images.store import ImageStore
from tator_sdk.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")
AWAY_SECONDS = 5.0
"""How long an engine that did not answer is asked last; a status asked each second keeps this up to date."""


def open_engines(
    settings: Settings, images: ImageStore, read_head: ReadHead | None = None
) -> EngineClient | RoutedEngines:
    """The engine at the settings' address, or all of them where there are several.

    Args:
        settings: where they listen.
        images: pictures by content hash, for an engine that does not have one.
        read_head: heads by version, likewise.
    """
    addresses = settings.engine_addresses
    if len(addresses) == 1:
        return EngineClient(settings, images, read_head)
    return RoutedEngines([Member(one, EngineClient(settings, images, read_head, address=one)) for one in addresses])


@dataclass
class Member:
    """One of several engines.

    Attributes:
        address: where it listens; pictures are spread by it, so it must be written the same everywhere.
        client: that calls it.
        away_until: moment of the monotonic clock before which it is asked last.
        loading: whether it said that its models are not there yet.
    """

    address: str
    client: EngineClient
    away_until: float = 0.0
    loading: bool = False

    def usable(self) -> bool:
        """Whether it is likely to answer at once."""
        return not self.loading and time.monotonic() >= self.away_until

    def missed(self) -> None:
        """Remember that it did not answer."""
        if self.usable():
            log.warning("the engine at %s does not answer; others take its pictures", self.address)
        self.away_until = time.monotonic() + AWAY_SECONDS


def ranked(image: str, addresses: Iterable[str]) -> list[str]:
    """Addresses in the order in which they are asked about a picture.

    Args:
        image: content hash.
        addresses: of engines.
    """

    def weight(address: str) -> bytes:
        return hashlib.blake2b(f"{image}@{address}".encode(), digest_size=16).digest()

    return sorted(addresses, key=weight, reverse=True)


class RoutedEngines:
    """Has the methods of :class:`EngineClient`; each call goes to the engine of its picture."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = {one.address: one for one in members}
        self._pool = ThreadPoolExecutor(len(members), thread_name_prefix="tator-engines")
        # apart: what jobs embed takes long, and status and stopping must not wait for it
        self._long = ThreadPoolExecutor(len(members), thread_name_prefix="tator-embeddings")

    def answer(self, ask: Ask) -> Answer:
        """Answer an annotator's prompts."""
        return self._of(ask.image, lambda engine: engine.answer(ask))

    def warm(self, image: str, segmenter: str | None = None, group: str = "") -> bool:
        """Make a picture ready ahead of its first prompt, without waiting."""
        return self._of(image, lambda engine: engine.warm(image, segmenter, group))

    def keep(self, image: str, segmenter: str | None = None) -> bool:
        """Have a picture's embedding on its engine's disk."""
        return self._of(image, lambda engine: engine.keep(image, segmenter))

    def segment(self, ask: SegmentAsk) -> Segmented:
        """Segment all boxes of a picture in the batch lane."""
        return self._of(ask.image, lambda engine: engine.segment(ask))

    def detect(self, ask: DetectAsk) -> Detected:
        """Ask a vision-language model in words."""
        return self._of(ask.image, lambda engine: engine.detect(ask))

    def find_concepts(self, ask: ConceptAsk) -> ConceptsFound:
        """Find every instance of phrases and exemplars."""
        return self._of(ask.image, lambda engine: engine.find_concepts(ask))

    def embed(self, ask: EmbedAsk) -> Embedded:
        """Embed boxes, each picture's at its engine, all at once.

        Raises:
            EngineError: engines have different weights, or with a sentence of one of them.
        """
        if not ask.items:
            return self._any(lambda engine: engine.embed(ask))
        places: dict[str, list[int]] = {}
        for number, item in enumerate(ask.items):
            places.setdefault(self._order(item.image)[0].address, []).append(number)
        parts = [replace(ask, items=tuple(ask.items[one] for one in numbers)) for numbers in places.values()]
        made = list(
            self._long.map(lambda part: self._of(part.items[0].image, lambda engine: engine.embed(part)), parts)
        )
        if len({one.encoder for one in made}) > 1:
            raise EngineError("Engines have different encoders; give all of them the same TATOR_ENCODER and weights.")
        return Embedded(made[0].encoder, _in_order(ask, zip(places.values(), made, strict=True)))

    def pin(self, images: Collection[str], seconds: float) -> None:
        """Let pictures leave memory last of all for some time."""
        for image in images:
            self._of(image, lambda engine, image=image: engine.pin([image], seconds))  # type: ignore[misc]

    def drop_preloads(self, keep: Collection[str], group: str | None = None) -> int:
        """Drop preloads that have not started, everywhere; returns how many."""
        return sum(self._all(lambda engine: engine.drop_preloads(keep, group)))

    def stop_detecting(self, task: str) -> int:
        """Take back all questions of a task; returns how many."""
        return sum(self._all(lambda engine: engine.stop_detecting(task)))

    def set_budget(self, budget_bytes: int) -> None:
        """Change the memory for warm pictures of all together: each engine gets the same share."""
        self._all(lambda engine: engine.set_budget(budget_bytes // len(self._members)))

    def segmenter_version(self, name: str | None = None) -> str:
        """Version of the segmenter of a name, as one of the engines has it."""
        return self._any(lambda engine: engine.segmenter_version(name))

    def encoder_version(self, name: str) -> str:
        """Version of the encoder of a name, as one of the engines has it."""
        return self._any(lambda engine: engine.encoder_version(name))

    def status(self) -> Status:
        """What all are doing, as one, and each by itself in ``engines``.

        Raises:
            EngineAway: none answers.
        """
        found = list(self._pool.map(self._status_of, self._members.values()))
        if not any(status for _, status in found):
            raise EngineAway(f"None of the {len(found)} engines answers; start them with `tator engine`.")
        return merge(found)

    def close(self) -> None:
        """Close idle connections."""
        for one in self._members.values():
            one.client.close()
        for pool in (self._pool, self._long):
            pool.shutdown(wait=False)

    def _order(self, image: str) -> list[Member]:
        """All engines in the order in which they are asked: the picture's own first, those away last."""
        members = [self._members[address] for address in ranked(image, self._members)]
        return sorted(members, key=lambda one: not one.usable())

    def _of(self, image: str, call: Callable[[EngineClient], T]) -> T:
        return self._first(self._order(image), call)

    def _any(self, call: Callable[[EngineClient], T]) -> T:
        return self._first(sorted(self._members.values(), key=lambda one: not one.usable()), call)

    @staticmethod
    def _first(members: Sequence[Member], call: Callable[[EngineClient], T]) -> T:
        """Ask one after the other; what they are asked changes nothing, so it may be asked again elsewhere.

        Raises:
            EngineAway: none of them answers.
        """
        for number, one in enumerate(members):
            try:
                return call(one.client)
            except EngineAway:
                one.missed()
                if number == len(members) - 1:
                    raise
        raise EngineAway("There is no engine.")

    def _all(self, call: Callable[[EngineClient], T]) -> list[T]:
        """Ask all; those away are left out."""

        def asked(one: Member) -> list[T]:
            try:
                return [call(one.client)]
            except EngineAway:
                one.missed()
                return []

        return [answer for part in self._pool.map(asked, self._members.values()) for answer in part]

    @staticmethod
    def _status_of(one: Member) -> tuple[EngineStatus, Status | None]:
        try:
            status = one.client.status()
        except EngineError as error:
            one.missed()
            return EngineStatus(one.address, False, error=str(error)), None
        one.away_until = 0.0
        one.loading = not status.ready
        return EngineStatus.of(one.address, status), status


def _in_order(
    ask: EmbedAsk, parts: Iterable[tuple[list[int], Embedded]]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    """Embeddings of several engines in the order of the boxes that were asked about."""
    rows: list[np.ndarray[tuple[int, ...], np.dtype[np.float16]]] = [np.empty(0, np.float16)] * len(ask.items)
    for numbers, made in parts:
        ends = np.cumsum([len(ask.items[one].xyxy) for one in numbers])
        for number, row in zip(numbers, np.split(made.embeddings, ends[:-1]), strict=True):
            rows[number] = row
    return np.concatenate(rows)
