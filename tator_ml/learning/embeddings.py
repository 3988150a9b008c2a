"""Embeddings of boxes, made once: a content-addressed store that every process may read and write.

LMDB holds it: one memory-mapped B-tree whose commits are atomic, so that a crash in the middle of a write
leaves what was there before, and a second writer waits its turn.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray

from tator_ml.engine.crops import CropRecipe
from tator_sdk.geometry import Xyxy

log = logging.getLogger(__name__)

Embedding = NDArray[np.float16]
FULL, EMPTIED = 0.9, 0.7  # from which share of the room on the oldest are dropped, and down to which
LEAST_BYTES = 2**20


@dataclass(frozen=True)
class ImageBox:
    """A box on a picture: the picture's content hash and pixels."""

    image: str
    xyxy: Xyxy


def key_of(box: ImageBox, recipe: CropRecipe, encoder: str) -> bytes:
    """20 bytes that stand for picture, box, recipe and encoder with its weights.

    Corners are rounded as the crop rounds them, so boxes that give the same crop share an embedding.
    """
    corners = ",".join(str(round(edge)) for edge in box.xyxy)
    said = f"{box.image}|{corners}|{recipe.key}|{encoder}"
    return hashlib.blake2b(said.encode(), digest_size=20).digest()


class EmbeddingCache:
    """L2-normalised float16 embeddings by ``key_of``; bounded, safe to delete at any time.

    Built in the process that uses it, after any fork: an LMDB environment does not survive one.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._max_bytes = max(max_bytes, LEAST_BYTES)
        self._lock = threading.Lock()
        self._environment = self._opened()
        self._order = itertools.count()

    def get(self, keys: Sequence[bytes]) -> list[Embedding | None]:
        """The embedding of each key, or None; a damaged one counts as missing."""
        try:
            return self._get(keys)
        except lmdb.Error as error:  # a page of the file, and with it the transaction; others can still be read
            log.warning("some embeddings are damaged (%s); delete %s while nothing runs", error, self._folder)
        rows: list[Embedding | None] = []
        for key in keys:
            try:
                rows += self._get([key])
            except lmdb.Error:
                rows.append(None)
        return rows

    def put(self, pairs: Iterable[tuple[bytes, NDArray[np.floating]]]) -> None:
        """Keep embeddings (D,) by key, all or none of them; a full disk is logged and costs only time later."""
        rows = [(key, np.asarray(embedding, np.float16).tobytes()) for key, embedding in pairs]
        try:
            with self._lock:
                try:
                    self._write(rows)
                except lmdb.MapFullError:
                    self._environment.reader_check()  # a reader that was killed keeps what is dropped
                    self._drop_oldest(0.5)
                    self._write(rows)
                if self._used() > FULL * self._max_bytes:
                    self._drop_oldest(1 - EMPTIED / FULL)
        except lmdb.Error as error:
            log.warning("embeddings are not kept: %s", error)

    def __len__(self) -> int:
        with self._environment.begin(db=self._values) as reading:
            return int(reading.stat(self._values)["entries"])

    def close(self) -> None:
        """Close the files."""
        self._environment.close()

    def _opened(self) -> lmdb.Environment:
        try:
            return self._open()
        except (lmdb.CorruptedError, lmdb.InvalidError, lmdb.VersionMismatchError) as error:
            log.warning("the embeddings in %s are damaged (%s) and will be made anew", self._folder, error)
            for file in self._folder.glob("*.mdb"):
                file.rename(file.with_suffix(f".damaged-{time.time_ns()}"))
            return self._open()

    def _open(self) -> lmdb.Environment:
        # room for what is deleted and written in the same transaction, beyond what is kept
        environment = lmdb.open(str(self._folder), map_size=2 * self._max_bytes, max_dbs=2, max_readers=512)
        pages = environment.info()["last_pgno"] + 1
        if (self._folder / "data.mdb").stat().st_size < pages * environment.stat()["psize"]:
            environment.close()  # to read a page that was cut off would end the process
            raise lmdb.CorruptedError("the file is shorter than its content")
        self._values = environment.open_db(b"values")
        self._ages = environment.open_db(b"ages")
        return environment

    def _get(self, keys: Sequence[bytes]) -> list[Embedding | None]:
        with self._environment.begin(db=self._values, buffers=True) as reading:
            return [_read(reading.get(key)) for key in keys]

    def _write(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        with self._environment.begin(write=True) as writing:
            for key, value in rows:
                if writing.put(key, value, overwrite=False, db=self._values):
                    age = time.time_ns().to_bytes(8, "big") + next(self._order).to_bytes(4, "big") + key[:4]
                    writing.put(age, key, db=self._ages)
                elif _read(writing.get(key, db=self._values)) is None:
                    writing.put(key, value, db=self._values)

    def _used(self) -> int:
        with self._environment.begin() as reading:
            pages = sum(
                reading.stat(database)[kind]
                for database in (self._values, self._ages)
                for kind in ("branch_pages", "leaf_pages", "overflow_pages")
            )
            return int(pages * reading.stat(self._values)["psize"])

    def _drop_oldest(self, share: float) -> None:
        with self._environment.begin(write=True) as writing:
            wanted = int(share * writing.stat(self._ages)["entries"]) + 1
            with writing.cursor(self._ages) as cursor:
                alive = cursor.first()
                while alive and wanted:
                    writing.delete(cursor.value(), db=self._values)
                    alive = cursor.delete() and bool(cursor.key())
                    wanted -= 1


def _read(value: bytes | memoryview | None) -> Embedding | None:
    if value is None or len(value) % 2:
        return None
    embedding = np.frombuffer(value, np.float16).copy()  # the buffer ends with the transaction
    norm = float(np.linalg.norm(embedding.astype(np.float32)))
    return embedding if 0.9 < norm < 1.1 else None
