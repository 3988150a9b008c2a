"""Pictures of the store made small, for pages that show many at once."""

from __future__ import annotations

import threading
from collections import OrderedDict

from tator_ml.images.store import ImageStore
from tator_sdk.images import ImageError, thumbnail

SIDE = 240
"""Pixels of a thumbnail's longer side."""
MOST_KEPT = 1000  # of some ten kilobytes each


class Thumbnails:
    """Makes each once, and keeps the latest."""

    def __init__(self, store: ImageStore, max_pixels: int) -> None:
        """Prepare.

        Args:
            store: of the pictures.
            max_pixels: larger pictures get no thumbnail.
        """
        self._store = store
        self._max_pixels = max_pixels
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def get(self, image: str) -> bytes | None:
        """A small JPEG of a content hash; None where the picture is not here or cannot be decoded."""
        with self._lock:
            if (made := self._kept.get(image)) is not None:
                self._kept.move_to_end(image)
                return made
        data = self._store.get(image)
        if data is None:
            return None
        try:
            made = thumbnail(data, self._max_pixels, SIDE)
        except ImageError:
            return None
        with self._lock:
            self._kept[image] = made
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return made
