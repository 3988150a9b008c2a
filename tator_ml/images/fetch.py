"""Addresses in tasks → picture files in the store; what may be read at all, `tator_sdk.downloads` decides."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from tator_ml.images.store import ImageStore
from tator_ml.once import Once
from tator_sdk.downloads import PictureSource
from tator_sdk.images import image_size
from tator_sdk.settings import Settings


@dataclass(frozen=True)
class ImageRef:
    """A picture that lies in the store.

    Attributes:
        image: SHA-256 of the file, hex.
        size_wh: width and height with EXIF rotation applied.
    """

    image: str
    size_wh: tuple[int, int]


@dataclass(frozen=True)
class _Known:
    ref: ImageRef
    checked: float
    etag: str | None
    modified: str | None


class ImageFetcher:
    """Fetches pictures with limits on time, bytes and pixels, and remembers which address held which."""

    def __init__(self, settings: Settings, store: ImageStore) -> None:
        self._settings = settings
        self._store = store
        self._source = PictureSource(settings)
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._reading: dict[tuple[str, int | None], Once[_Known]] = {}
        self._lock = threading.Lock()

    def fetch(self, address: str, task_id: int | None = None) -> ImageRef:
        """Bring the picture of an address into the store, unless it is known to be there.

        Several who ask at the same time share one download, or its error.

        Args:
            address: what the task holds: a path on Label Studio, an URL, ``data:``, or a cloud address.
            task_id: needed to let Label Studio sign cloud addresses.

        Raises:
            ImageError: not allowed, not found, too slow, too large, or not a picture.
        """
        if address.startswith("data:"):
            return self._kept(self._source.read(address).data or b"").ref
        key = (address, task_id)
        with self._lock:
            known = self._known.get(address)
            if known is not None and known.ref.image not in self._store:
                known = None
            if known is not None and time.monotonic() - known.checked < self._settings.image_recheck_seconds:
                return known.ref
            reading = self._reading.setdefault(key, Once(lambda: self._read(address, task_id, known)))
        try:
            return reading().ref
        finally:
            with self._lock:  # a failure is not kept, and what was read is known
                if self._reading.get(key) is reading:
                    del self._reading[key]

    def forget(self, ref: ImageRef) -> None:
        """Take no address to mean this picture any more: it proved damaged and may be mended."""
        with self._lock:
            for address in [one for one, known in self._known.items() if known.ref == ref]:
                del self._known[address]

    def close(self) -> None:
        """Close connections."""
        self._source.close()

    def _read(self, address: str, task_id: int | None, known: _Known | None) -> _Known:
        etag, modified = (known.etag, known.modified) if known else (None, None)
        found = self._source.read(address, task_id, etag, modified)
        if found.data is None and known:
            read = _Known(known.ref, time.monotonic(), known.etag, known.modified)
        else:
            read = self._kept(found.data or b"", found.etag, found.modified)
        with self._lock:
            self._known[address] = read
            self._known.move_to_end(address)
            while len(self._known) > 20_000:
                self._known.popitem(last=False)
        return read

    def _kept(self, data: bytes, etag: str | None = None, modified: str | None = None) -> _Known:
        size_wh = image_size(data, self._settings.image_max_pixels)
        return _Known(ImageRef(self._store.put(data), size_wh), time.monotonic(), etag, modified)
