"""The engine: the only holder of models, answering prompts on pictures that it keeps warm."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tator_ml.engine.lanes import Lane, Lanes
from tator_ml.engine.messages import (
    Answer,
    Ask,
    Busy,
    EngineError,
    Found,
    PackedMask,
    Prompt,
    Status,
    UnknownImage,
    Verdict,
)
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
    ) -> None:
        self._settings = settings
        self._images = images
        self._segmenter = segmenter
        self._classifier = classifier
        self._guard = Guard.of(settings)
        self._device = device
        self._lanes = Lanes()
        self._warm = WarmImages(settings.warm_bytes)
        self._encodings = 0

    @property
    def model_version(self) -> str:
        """Segmenter and head with their versions, as predictions carry it."""
        head = self._classifier.version if self._classifier else "no-head"
        return f"{self._segmenter.version}+{head}"

    def answer(self, ask: Ask) -> Answer:
        """Answer an annotator's prompts, before everything that waits in other lanes.

        Raises:
            UnknownImage: the picture's bytes are not in the store.
            ImageError: they cannot be decoded.
            Busy: too many clicks wait already.
            EngineError: no answer in time.
        """
        begun = time.monotonic()
        future = self._lanes.submit(Lane.CLICK, lambda: self._answer(ask, begun))
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

    def _answer(self, ask: Ask, begun: float) -> Answer:
        warm, was_warm = self._warmed(ask.image)
        found = self._segment(warm, ask)
        if ask.classify and self._classifier is not None:
            found = self._classified(warm, found)
        return Answer(
            found=tuple(found),
            size_wh=warm.embedding.size_wh,
            model_version=self.model_version,
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

    def _classified(self, warm: WarmImage, found: list[Found | None]) -> list[Found | None]:
        assert self._classifier is not None  # noqa: S101
        present = [(index, one) for index, one in enumerate(found) if one is not None]
        verdicts = self._classifier.classify(warm.pixels, [one.xyxy for _, one in present])
        for (index, one), verdict in zip(present, verdicts, strict=True):
            found[index] = Found(one.xyxy, one.refined, one.quality, one.reason, one.mask, verdict)
        return found


def _taken(segment: Segment, ask: Ask) -> Found:
    mask = PackedMask.pack(segment.mask) if ask.masks else None
    return Found(segment.xyxy, True, segment.quality, None, mask)


def _log_failure(image: str, done: Future[object]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.warning("preload of %s failed: %s", image[:12], error)
