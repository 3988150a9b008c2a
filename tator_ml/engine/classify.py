"""Boxes of a picture → crops → embeddings → verdicts."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tator_ml.engine.encoders.base import Encoder
from tator_ml.engine.head import Head, HeadError
from tator_ml.engine.messages import Verdict
from tator_sdk.geometry import Xyxy


class Classifier(Protocol):
    """Boxes of a picture → classes."""

    version: str

    def classify(self, pixels: NDArray[np.uint8], boxes: list[Xyxy]) -> list[Verdict]:
        """One verdict for each box; ``pixels`` is (H, W, 3) uint8 RGB."""
        ...


class HeadClassifier:
    """An encoder with a head that was fitted on its embeddings."""

    def __init__(self, encoder: Encoder, head: Head) -> None:
        """Bring the two together.

        Raises:
            HeadError: the head was fitted on another encoder's.
        """
        if head.encoder != encoder.version:
            raise HeadError(
                f"The head {head.version} was fitted on {head.encoder}, not on {encoder.version}: choose that "
                "encoder, or train a head with this one."
            )
        self._encoder = encoder
        self._head = head
        self.version = head.version

    def classify(self, pixels: NDArray[np.uint8], boxes: list[Xyxy]) -> list[Verdict]:
        """One verdict for each box, all crops in one batch; ``pixels`` is (H, W, 3) uint8 RGB."""
        if not boxes:
            return []
        crops = [self._head.recipe.crop(pixels, box, self._encoder.size) for box in boxes]
        # as the cache keeps what heads are fitted on, so that the same box gets the same verdict
        embeddings = self._encoder.embed(crops).astype(np.float16).astype(np.float32)
        return self._head.verdicts(embeddings)
