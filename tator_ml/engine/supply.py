"""Where a picture's embedding comes from: memory, else disk, else an encoding.

All but the encoding happens on the thread of whoever asks, so that the device's thread does nothing but
encode and decode masks; several who ask at once share one reading, one decoding and one encoding.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from weakref import WeakValueDictionary

from tator_ml.engine.memory import is_out_of_memory
from tator_ml.engine.messages import UnknownImage
from tator_ml.engine.segmenters.base import Embedding, Segmenter
from tator_ml.engine.store import EmbeddingStore
from tator_ml.engine.warm import Pixels, WarmImage, WarmImages
from tator_ml.images.decode import decode_image
from tator_ml.images.store import ImageStore
from tator_ml.once import Once

log = logging.getLogger(__name__)

MOST_UNWRITTEN_BYTES = 256 * 2**20  # so much waits only where the disk is slower than the encoder


@dataclass(frozen=True)
class Prepared:
    """All that can be had of a picture without the device.

    Attributes:
        image: its content hash.
        picture: decoded already where ``stored`` is None.
        stored: the embedding from disk; None when it must be made.
    """

    image: str
    picture: Once[Pixels]
    stored: Embedding | None


@dataclass(frozen=True)
class Unwritten:
    """An embedding that is not on disk yet, and its writing, by the writer or by whoever cannot wait for it."""

    embedding: Embedding
    write: Once[bool]


class Supply:
    """Warm pictures over the disk's embeddings over the picture files."""

    def __init__(
        self, images: ImageStore, store: EmbeddingStore, warm: WarmImages, max_pixels: int, device: str = "cpu"
    ) -> None:
        """Start the thread that writes embeddings.

        Args:
            images: picture files by content hash.
            store: embeddings on disk.
            warm: pictures in memory.
            max_pixels: larger pictures are refused.
            device: where embeddings from disk are moved to.
        """
        self.warm = warm
        self.store = store
        self.encodings = 0
        self._images = images
        self._max_pixels = max_pixels
        self._device = device
        self._lock = threading.Lock()
        self._pictures: WeakValueDictionary[str, Once[Pixels]] = WeakValueDictionary()
        self._readings: WeakValueDictionary[tuple[str, str], Once[Embedding | None]] = WeakValueDictionary()
        self._unwritten: dict[tuple[str, str], Unwritten] = {}
        self._to_write: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self._decoders = ThreadPoolExecutor(2, thread_name_prefix="tator-decode")
        self._writer = threading.Thread(target=self._write, name="tator-store", daemon=True)
        self._writer.start()

    def prepare(self, model: str, image: str, pixels: bool) -> Prepared | WarmImage:
        """The warm picture, or what is needed to make it warm; on the thread of whoever asks.

        Args:
            model: ``Segmenter.version``.
            image: content hash.
            pixels: whether the picture itself is wanted, not its embedding alone.

        Raises:
            UnknownImage: the picture's bytes are not here.
            ImageError: they cannot be decoded.
        """
        warm = self.warm.get(model, image)
        if warm is not None:
            if warm.picture.failed:  # its bytes may have come meanwhile
                warm = replace(warm, picture=self._picture(image))
                self.warm.put(image, warm)
            if pixels:
                warm.picture()
            return warm
        picture = self._picture(image)
        if pixels and self.store.contains(model, image):
            self._decoders.submit(_quietly, picture)  # while this thread reads the embedding
        stored = self._reading(model, image)()
        if pixels or stored is None:
            picture()
        return Prepared(image, picture, stored)

    def pixels(self, image: str) -> Pixels:
        """A picture (H, W, 3) uint8 RGB by its content hash, decoded once for all who ask at the same time.

        Raises:
            UnknownImage: its bytes are not here.
            ImageError: they cannot be decoded.
        """
        return self._picture(image)()

    def warmed(self, segmenter: Segmenter, prepared: Prepared | WarmImage) -> tuple[WarmImage, str]:
        """The warm picture, and where it came from: ``memory``, ``disk``, ``encoded``; on the device's thread."""
        if isinstance(prepared, WarmImage):
            return prepared, "memory"
        warm = self.warm.get(segmenter.version, prepared.image)
        if warm is not None:
            return warm, "memory"
        embedding, came_from = self.embedding(segmenter, prepared)
        warm = WarmImage(prepared.picture, embedding)
        self.warm.put(prepared.image, warm)
        return warm, came_from

    def embedding(self, segmenter: Segmenter, prepared: Prepared) -> tuple[Embedding, str]:
        """A picture's embedding, from ``disk`` or ``encoded`` now; on the device's thread."""
        stored = prepared.stored or self._read(segmenter.version, prepared.image)  # others encoded it meanwhile
        if stored is not None:
            return self._moved(stored), "disk"
        embedding = segmenter.encode(prepared.picture())
        self.encodings += 1
        self._write_later(prepared.image, embedding)
        return embedding, "encoded"

    def write(self, image: str, embedding: Embedding) -> bool:
        """Have an embedding on disk when this returns; False, with a line in the log, where that is impossible."""
        with self._lock:
            waiting = self._unwritten.get((embedding.model, image))
        return waiting.write() if waiting is not None else self.store.put(image, embedding)

    def _write_later(self, image: str, embedding: Embedding) -> None:
        if not self.store.max_bytes:
            return
        key = (embedding.model, image)
        with self._lock:
            if sum(one.embedding.nbytes for one in self._unwritten.values()) >= MOST_UNWRITTEN_BYTES:
                log.warning("the disk is too slow: the embedding of %s is not kept", image[:12])
                return
            self._unwritten[key] = Unwritten(embedding, Once(partial(self.store.put, image, embedding)))
        self._to_write.put(key)

    def flush(self, seconds: float) -> bool:
        """Wait until everything is written; False when the time does not suffice."""
        until = time.monotonic() + seconds
        while self._unwritten:
            if time.monotonic() > until:
                return False
            time.sleep(0.005)
        return True

    def close(self) -> None:
        """Write what is left and end the threads."""
        self.flush(10.0)
        self._to_write.put(None)
        self._decoders.shutdown(wait=False, cancel_futures=True)

    def _picture(self, image: str) -> Once[Pixels]:
        with self._lock:
            picture = self._pictures.get(image)
            if picture is None or picture.failed:
                picture = self._pictures[image] = Once(lambda: self._decode(image))
            return picture

    def _decode(self, image: str) -> Pixels:
        data = self._images.get(image)
        if data is None:
            raise UnknownImage(f"The picture {image[:12]} is not in the store.")
        return decode_image(data, self._max_pixels)

    def _reading(self, model: str, image: str) -> Once[Embedding | None]:
        with self._lock:
            reading = self._readings.get((model, image))
            if reading is None or reading.failed:
                reading = self._readings[model, image] = Once(lambda: self._read(model, image))
            return reading

    def _read(self, model: str, image: str) -> Embedding | None:
        unwritten = self._unwritten.get((model, image))
        return unwritten.embedding if unwritten is not None else self.store.get(model, image)

    def _moved(self, embedding: Embedding) -> Embedding:
        """An embedding from disk on the device, where every click would otherwise have to bring it."""
        try:
            moved = {name: tensor.to(self._device) for name, tensor in embedding.tensors.items()}
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return embedding  # then every click does bring it
        return replace(embedding, tensors=moved)

    def _write(self) -> None:
        while (key := self._to_write.get()) is not None:
            with self._lock:
                unwritten = self._unwritten.get(key)
            if unwritten is None:  # encoded twice, and written with the first
                continue
            try:
                unwritten.write()
            except Exception:  # one embedding that cannot be written must not end the thread
                log.exception("the embedding of %s could not be written", key[1][:12])
            with self._lock:
                self._unwritten.pop(key, None)


def _quietly(work: Callable[[], object]) -> None:
    """Whoever needs the result meets the error."""
    try:
        work()
    except Exception as error:
        log.debug("decoding ahead failed: %s", error)
