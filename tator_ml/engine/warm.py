"""Pictures that are ready to be prompted, within a budget of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tator_ml.engine.messages import WarmStatus
from tator_ml.engine.segmenters.base import Embedding


@dataclass(frozen=True)
class WarmImage:
    """A decoded picture (H, W, 3) uint8 RGB with its embedding."""

    pixels: NDArray[np.uint8]
    embedding: Embedding

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        return self.pixels.nbytes + self.embedding.nbytes


class WarmImages:
    """Least recently used out; the newest always fits, so that a click can be answered at all."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._images: OrderedDict[str, WarmImage] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, image: str) -> WarmImage | None:
        """The warm picture of a content hash, marked as used now; None when it is cold."""
        with self._lock:
            warm = self._images.get(image)
            if warm is not None:
                self._images.move_to_end(image)
            return warm

    def put(self, image: str, warm: WarmImage) -> None:
        """Keep a picture, letting the least recently used go until the budget holds."""
        with self._lock:
            before = self._images.pop(image, None)
            self._bytes += warm.nbytes - (before.nbytes if before else 0)
            self._images[image] = warm
            while self._bytes > self.budget_bytes and len(self._images) > 1:
                _, dropped = self._images.popitem(last=False)
                self._bytes -= dropped.nbytes

    def status(self) -> tuple[WarmStatus, ...]:
        """Most recently used first."""
        with self._lock:
            return tuple(WarmStatus(name, warm.nbytes) for name, warm in reversed(self._images.items()))
