"""Labelled boxes → embeddings: from the cache where they are known, from an engine or an encoder where not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tator_ml.engine.client import EngineAway
from tator_ml.engine.crops import CropRecipe
from tator_ml.engine.messages import Busy, EmbedAsk, Embedded, EngineError, ImageBoxes
from tator_ml.images.decode import ImageError
from tator_ml.images.store import ImageStore
from tator_ml.learning.embeddings import Embedding, EmbeddingCache, ImageBox, key_of

RETRY_SECONDS = 1.0
AHEAD = 2  # requests at once: while one is encoded, the next one's crops are cut


class Computes(Protocol):
    """Embeds boxes: an engine, or ``LocalEncoder`` in this process."""

    def embed(self, ask: EmbedAsk) -> Embedded:
        """Embeddings in the order of the boxes asked about."""
        ...

    def encoder_version(self, name: str) -> str:
        """Version of the encoder of a name."""
        ...


class LocalEncoder:
    """Embeds in this process, where no engine runs; torch is imported with the encoder."""

    def __init__(self, images: ImageStore, device: str, max_pixels: int, threads: int = 0) -> None:
        """Prepare.

        Args:
            images: pictures by content hash.
            device: where the encoder runs.
            max_pixels: of the largest picture that is decoded.
            threads: of torch on a CPU; 0 lets it choose.
        """
        import torch

        from tator_ml.engine import encoders
        from tator_ml.engine.loading import choose_device
        from tator_ml.engine.models import ClassModels

        if threads:
            torch.set_num_threads(threads)
        self._models = ClassModels(lambda name: encoders.load(name, choose_device(device)))
        self._images = images
        self._max_pixels = max_pixels
        self._lock = threading.Lock()

    def embed(self, ask: EmbedAsk) -> Embedded:
        """Crops are cut on the caller's thread, and embedded one request at a time."""
        from tator_ml.engine.embedding import cut_crops

        encoder = self._models.encoder(ask.encoder)
        crops = cut_crops(ask, encoder, self._images.get, self._max_pixels)
        with self._lock:
            return Embedded(encoder.version, encoder.embed(crops).astype(np.float16))

    def encoder_version(self, name: str) -> str:
        """Version of the encoder of a name, which is loaded if need be."""
        return self._models.encoder(name).version


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Embeddings of boxes, as float32 of what the cache keeps.

    Attributes:
        values: (N, dim) float32 in the order of the boxes; rows of failed ones are zero.
        made: (N,) whether the box was embedded.
        encoder: ``Encoder.version``.
        failed: pictures that could not be used, with the reason in a sentence.
        computed: how many were not in the cache.
    """

    values: NDArray[np.float32]
    made: NDArray[np.bool_]
    encoder: str
    failed: dict[str, str] = field(default_factory=dict)
    computed: int = 0


class Embedder:
    """Embeds boxes with one encoder and one recipe."""

    def __init__(
        self,
        computes: Computes,
        cache: EmbeddingCache | None,
        encoder: str,
        recipe: CropRecipe,
        batch: int = 64,
        patience_seconds: float = 0.0,
    ) -> None:
        """Prepare.

        Args:
            computes: an engine or a local encoder.
            cache: where known embeddings lie; None to make all of them anew and keep none.
            encoder: its name.
            recipe: how crops are cut.
            batch: crops that are asked for together.
            patience_seconds: how long an engine may be away or busy before that is an error.
        """
        self._computes = computes
        self._cache = cache
        self._encoder = encoder
        self._recipe = recipe
        self._batch = batch
        self._patience_seconds = patience_seconds

    def embed(
        self,
        boxes: Sequence[ImageBox],
        provide: Callable[[str], None] = lambda image: None,
        watch: Callable[[int, int], None] = lambda done, total: None,
    ) -> Embeddings:
        """Embed boxes; a picture that cannot be used takes only its own boxes with it.

        Args:
            boxes: on pictures whose bytes are in the image store, or that ``provide`` brings there.
            provide: is called with a picture's hash before its boxes are computed.
            watch: is told how many are done, of how many; may raise to stop, and what is done stays cached.

        Raises:
            EngineError: nobody can compute.
        """
        version = self._computes.encoder_version(self._encoder)
        keys = [key_of(box, self._recipe, version) for box in boxes]
        rows: list[Embedding | None] = self._cache.get(keys) if self._cache else [None] * len(boxes)
        missing = [index for index, row in enumerate(rows) if row is None]
        done, failed = len(boxes) - len(missing), {}
        watch(done, len(boxes))
        parts = self._parts(missing, boxes)

        def work(part: list[int]) -> tuple[list[int], dict[int, Embedding], dict[str, str]]:
            return part, *self._compute(part, boxes, provide, version)

        with ThreadPoolExecutor(AHEAD, thread_name_prefix="tator-embed") as pool:
            waiting = [pool.submit(work, part) for part in parts[:AHEAD]]
            coming = iter(parts[AHEAD:])
            try:
                while waiting:
                    part, found, wrong = waiting.pop(0).result()
                    if (following := next(coming, None)) is not None:
                        waiting.append(pool.submit(work, following))
                    if self._cache is not None:
                        self._cache.put((keys[index], row) for index, row in found.items())
                    for index, row in found.items():
                        rows[index] = row
                    failed.update(wrong)
                    done += len(part)
                    watch(done, len(boxes))
            finally:
                for future in waiting:
                    future.cancel()
        made = np.array([row is not None for row in rows], bool)
        dim = next((len(row) for row in rows if row is not None), 0)
        values = np.zeros((len(rows), dim), np.float32)
        for index, known in enumerate(rows):
            if known is not None:
                values[index] = known
        return Embeddings(values, made, version, failed, len(missing))

    def _parts(self, missing: Sequence[int], boxes: Sequence[ImageBox]) -> list[list[int]]:
        """Whole pictures together, so that each is decoded once, up to a batch of crops in a part."""
        by_image: dict[str, list[int]] = {}
        for index in missing:
            by_image.setdefault(boxes[index].image, []).append(index)
        parts: list[list[int]] = [[]]
        for indices in by_image.values():
            if parts[-1] and len(parts[-1]) + len(indices) > self._batch:
                parts.append([])
            parts[-1] += indices
        return [part for part in parts if part]

    def _compute(
        self, part: Sequence[int], boxes: Sequence[ImageBox], provide: Callable[[str], None], version: str
    ) -> tuple[dict[int, Embedding], dict[str, str]]:
        by_image: dict[str, list[int]] = {}
        for index in part:
            by_image.setdefault(boxes[index].image, []).append(index)
        with suppress(ImageError):
            return self._ask(by_image, boxes, provide, version), {}
        found: dict[int, Embedding] = {}
        failed: dict[str, str] = {}
        for image, indices in by_image.items():  # one picture at a time, to find the one that is broken
            try:
                found |= self._ask({image: indices}, boxes, provide, version)
            except ImageError as error:
                failed[image] = str(error)
        return found, failed

    def _ask(
        self,
        by_image: dict[str, list[int]],
        boxes: Sequence[ImageBox],
        provide: Callable[[str], None],
        version: str,
    ) -> dict[int, Embedding]:
        for image in by_image:
            provide(image)
        items = tuple(
            ImageBoxes(image, tuple(boxes[index].xyxy for index in indices)) for image, indices in by_image.items()
        )
        ask = EmbedAsk(self._encoder, items, self._recipe.margin, self._recipe.square)
        embedded = self._patiently(ask)
        if embedded.encoder != version:  # the engine was started anew with other weights
            raise EngineError(f"The encoder changed from {version} to {embedded.encoder} meanwhile; start again.")
        embeddings = embedded.embeddings
        order = [index for indices in by_image.values() for index in indices]
        return dict(zip(order, embeddings, strict=True))

    def _patiently(self, ask: EmbedAsk) -> Embedded:
        """Ask, and ask again while the engine is started anew or has its hands full."""
        deadline: float | None = None  # from the first failure on: a batch may take longer than the patience itself
        while True:
            try:
                return self._computes.embed(ask)
            except (EngineAway, Busy):
                now = time.monotonic()
                deadline = deadline or now + self._patience_seconds
                if now >= deadline:
                    raise
                time.sleep(RETRY_SECONDS)
