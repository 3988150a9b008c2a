"""Pictures that are ready to be prompted, within a budget of bytes."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tator_ml.engine.messages import WarmStatus
from tator_ml.engine.segmenters.base import Embedding
from tator_ml.once import Once

Pixels = NDArray[np.uint8]
LEAST_BUDGET_BYTES = 64 * 2**20


@dataclass(frozen=True)
class WarmImage:
    """An embedding, and its picture (H, W, 3) uint8 RGB: decoded, or ready to be decoded when first asked for."""

    picture: Once[Pixels]
    embedding: Embedding

    @property
    def nbytes(self) -> int:
        """Bytes held in memory; the pixels count whether or not they are decoded yet."""
        width, height = self.embedding.size_wh
        return 3 * width * height + self.embedding.nbytes


class WarmImages:
    """Least recently used out, but what people look at last of all.

    The newest always fits, so that a click can be answered at all. A picture is kept for each segmenter version.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.evictions = 0
        self._images: OrderedDict[tuple[str, str], WarmImage] = OrderedDict()
        self._pinned_until: dict[str, float] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, model: str, image: str) -> WarmImage | None:
        """The warm picture of a content hash, marked as used now; None when it is cold for that segmenter version."""
        with self._lock:
            warm = self._images.get((model, image))
            if warm is not None:
                self._images.move_to_end((model, image))
            return warm

    def put(self, image: str, warm: WarmImage) -> None:
        """Keep a picture, letting the least recently used go until the budget holds."""
        key = (warm.embedding.model, image)
        with self._lock:
            before = self._images.pop(key, None)
            self._bytes += warm.nbytes - (before.nbytes if before else 0)
            self._images[key] = warm
            self._evict(self.budget_bytes)

    def pin(self, images: Iterable[str], seconds: float) -> None:
        """Let these pictures go last of all for some time; they need not be warm yet."""
        until = time.monotonic() + seconds
        with self._lock:
            for image in images:
                self._pinned_until[image] = max(until, self._pinned_until.get(image, 0.0))

    def set_budget(self, budget_bytes: int) -> None:
        """Change the budget; what is too much goes at once."""
        with self._lock:
            self.budget_bytes = budget_bytes
            self._evict(budget_bytes)

    def halve(self) -> int:
        """Let half of the bytes go, the newest picture staying; returns how many pictures went.

        The budget follows down to ``LEAST_BUDGET_BYTES``, or memory would run short again with the next pictures.
        """
        with self._lock:
            before = len(self._images)
            self.budget_bytes = min(self.budget_bytes, max(self._bytes // 2, LEAST_BUDGET_BYTES))
            self._evict(self._bytes // 2)
            return before - len(self._images)

    def forget(self, model: str) -> int:
        """Let all pictures of a segmenter version go; returns how many."""
        with self._lock:
            gone = [key for key in self._images if key[0] == model]
            for key in gone:
                self._bytes -= self._images.pop(key).nbytes
            return len(gone)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._bytes

    def status(self) -> tuple[WarmStatus, ...]:
        """Most recently used first."""
        with self._lock:
            pinned = self._pinned()
            return tuple(
                WarmStatus(image, warm.nbytes, model, image in pinned)
                for (model, image), warm in reversed(self._images.items())
            )

    def _pinned(self) -> set[str]:
        now = time.monotonic()
        self._pinned_until = {image: until for image, until in self._pinned_until.items() if until > now}
        return set(self._pinned_until)

    def _evict(self, most_bytes: int) -> None:
        if self._bytes <= most_bytes:
            return
        pinned = self._pinned()
        *others, _ = self._images  # the newest stays
        for key in sorted(others, key=lambda key: key[1] in pinned):  # stable: the order of use within both
            if self._bytes <= most_bytes:
                return
            self._bytes -= self._images.pop(key).nbytes
            self.evictions += 1
