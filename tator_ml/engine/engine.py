"""The engine: the only holder of models, answering prompts on pictures that it keeps warm."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tator_ml.engine import encoders
from tator_ml.engine.embedding import Stepper, cut_crops
from tator_ml.engine.lanes import Lane, Lanes
from tator_ml.engine.messages import (
    Answer,
    Ask,
    Busy,
    EmbedAsk,
    Embedded,
    EngineError,
    Found,
    PackedMask,
    Prompt,
    Status,
    UnknownImage,
    Verdict,
)
from tator_ml.engine.models import ClassModels
from tator_ml.engine.refine import Guard, Segment, objections, segment_boxes, segment_points
from tator_ml.engine.segmenters.base import Segmenter
from tator_ml.engine.warm import WarmImage, WarmImages
from tator_ml.images.decode import decode_image
from tator_ml.images.store import ImageStore
from tator_sdk.geometry import Xyxy, area_xyxy, clip_xyxy
from tator_sdk.settings import Settings

log = logging.getLogger(__name__)


class Classifier(Protocol):
    """Boxes of a picture → classes."""

    version: str

    def classify(self, pixels: NDArray[np.uint8], boxes: list[Xyxy]) -> list[Verdict]:
        """One verdict for each box; ``pixels`` is (H, W, 3) uint8 RGB."""
        ...


class Engine:
    """Answers prompts. One thread works on the device; any number may ask."""

    def __init__(
        self,
        settings: Settings,
        images: ImageStore,
        segmenter: Segmenter,
        classifier: Classifier | None,
        device: str = "cpu",
        models: ClassModels | None = None,
    ) -> None:
        """Start the device thread.

        Args:
            settings: budgets, guard and patience.
            images: pictures by content hash.
            segmenter: answers the prompts.
            classifier: classifies for projects without a head of their own; None leaves the drawn class.
            device: its name, for the status.
            models: encoders and heads for projects that have one; by default encoders load on ``device``.
        """
        self._settings = settings
        self._images = images
        self._segmenter = segmenter
        self._classifier = classifier
        self._guard = Guard.of(settings)
        self._device = device
        self._lanes = Lanes()
        self._models = models or ClassModels(lambda name: encoders.load(name, device))
        self._stepper = Stepper(self._lanes)
        self._warm = WarmImages(settings.warm_bytes)
        self._encodings = 0

    @property
    def model_version(self) -> str:
        """Segmenter and head with their versions, as predictions carry it."""
        return f"{self._segmenter.version}+{_head_version(self._classifier)}"

    def answer(self, ask: Ask) -> Answer:
        """Answer an annotator's prompts, before everything that waits in other lanes.

        Raises:
            UnknownImage: the picture's bytes are not in the store.
            UnknownHead: the head that is asked for was not put here.
            ImageError: they cannot be decoded.
            Busy: too many clicks wait already.
            EngineError: no answer in time.
        """
        begun = time.monotonic()
        classifier = self._models.classifier(ask.head) if ask.head and ask.classify else self._classifier
        future = self._lanes.submit(Lane.CLICK, lambda: self._answer(ask, classifier, begun))
        try:
            return future.result(self._settings.answer_timeout_seconds)
        except FutureTimeout:
            future.cancel()
            seconds = self._settings.answer_timeout_seconds
            raise EngineError(f"Tator did not finish within {seconds:g} s; try again.") from None

    def warm(self, image: str) -> bool:
        """Make a picture ready ahead of its first prompt; False when there is no room to wait."""
        if self._warm.get(image) is not None:
            return True
        try:
            future: Future[object] = self._lanes.submit(Lane.PRELOAD, lambda: self._warmed(image))
        except Busy:
            return False
        future.add_done_callback(lambda done: _log_failure(image, done))
        return True

    def put_image(self, data: bytes) -> str:
        """Keep a picture's bytes; returns its content hash."""
        return self._images.put(data)

    def put_head(self, files: Mapping[str, bytes]) -> str:
        """Take in a class head by its files; returns its version."""
        return self._models.put_head(files)

    def embed(self, ask: EmbedAsk) -> Embedded:
        """Embed boxes in the batch lane; crops are cut on the caller's thread.

        Raises:
            UnknownImage: a picture's bytes are not in the store.
            ImageError: they cannot be decoded.
            Busy: too much work waits already.
        """
        encoder = self._models.encoder(ask.encoder)
        crops = cut_crops(ask, encoder, self._images.get, self._settings.image_max_pixels)
        return self._stepper.embed(encoder, crops)

    def encoder_version(self, name: str) -> str:
        """Version of the encoder of a name, which is loaded if need be."""
        return self._models.encoder(name).version

    def status(self) -> Status:
        """What the engine is doing now."""
        return Status(
            ready=True,
            device=self._device,
            model_version=self.model_version,
            waiting=self._lanes.waiting(),
            warm=self._warm.status(),
            budget_bytes=self._warm.budget_bytes,
            encodings=self._encodings,
            segmenter=self._segmenter.version,
            head=_head_version(self._classifier),
        )

    def close(self) -> None:
        """End the working thread."""
        self._lanes.close()

    def _warmed(self, image: str) -> tuple[WarmImage, bool]:
        """The warm picture, made now if need be, and whether it was ready. On the device thread."""
        warm = self._warm.get(image)
        if warm is not None:
            return warm, True
        data = self._images.get(image)
        if data is None:
            raise UnknownImage(f"The picture {image[:12]} is not in the store.")
        pixels = decode_image(data, self._settings.image_max_pixels)
        warm = WarmImage(pixels, self._segmenter.encode(pixels))
        self._encodings += 1
        self._warm.put(image, warm)
        return warm, False

    def _answer(self, ask: Ask, classifier: Classifier | None, begun: float) -> Answer:
        warm, was_warm = self._warmed(ask.image)
        found = self._segment(warm, ask)
        if ask.classify and classifier is not None:
            found = _classified(classifier, warm, found)
        return Answer(
            found=tuple(found),
            size_wh=warm.embedding.size_wh,
            model_version=f"{self._segmenter.version}+{ask.head or _head_version(classifier)}",
            was_warm=was_warm,
            seconds=time.monotonic() - begun,
        )

    def _segment(self, warm: WarmImage, ask: Ask) -> list[Found | None]:
        found: list[Found | None] = [None] * len(ask.prompts)
        boxed: dict[int, Xyxy] = {}
        for index, prompt in enumerate(ask.prompts):
            box = prompt.box_xyxy and clip_xyxy(prompt.box_xyxy, warm.embedding.size_wh)
            if box and not prompt.points_xy:
                if area_xyxy(box) < 1:
                    found[index] = Found(box, refined=False, reason="it is smaller than a pixel")
                elif ask.refine:
                    boxed[index] = box
                else:
                    found[index] = Found(box, refined=False)
            elif prompt.points_xy:
                clipped = Prompt(prompt.points_xy, prompt.positive, box or None)
                segment = segment_points(self._segmenter, warm.embedding, clipped)
                found[index] = None if segment is None else _taken(segment, ask)
        segments = segment_boxes(self._segmenter, warm.embedding, list(boxed.values())) if boxed else []
        for (index, drawn), segment in zip(boxed.items(), segments, strict=True):
            found[index] = self._guarded(segment, drawn, ask)
        return found

    def _guarded(self, segment: Segment | None, drawn: Xyxy, ask: Ask) -> Found:
        if segment is None:
            return Found(drawn, refined=False, reason="the segmenter sees nothing in it")
        against = objections(segment, drawn, self._guard)
        if against:
            return Found(drawn, False, segment.quality, "the refined box " + " and ".join(against))
        return _taken(segment, ask)


def _classified(classifier: Classifier, warm: WarmImage, found: list[Found | None]) -> list[Found | None]:
    present = [(index, one) for index, one in enumerate(found) if one is not None]
    verdicts = classifier.classify(warm.pixels, [one.xyxy for _, one in present])
    named = list(found)
    for (index, one), verdict in zip(present, verdicts, strict=True):
        named[index] = Found(one.xyxy, one.refined, one.quality, one.reason, one.mask, verdict)
    return named


def _head_version(classifier: Classifier | None) -> str:
    return classifier.version if classifier else "no-head"


def _taken(segment: Segment, ask: Ask) -> Found:
    mask = PackedMask.pack(segment.mask) if ask.masks else None
    return Found(segment.xyxy, True, segment.quality, None, mask)


def _log_failure(image: str, done: Future[object]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.warning("preload of %s failed: %s", image[:12], error)
