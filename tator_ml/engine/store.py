"""Embeddings on disk: what was encoded once is read ever after, by every process and after every restart.

One safetensors file for each picture and segmenter version, ``<version>/<aa>/<hash>.safetensors``, in half
precision. A checksum over the whole file stands in its own metadata, its digits taken as zeros.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from safetensors.torch import save
from torch import Tensor

from tator_ml.engine.segmenters.base import Embedding
from tator_sdk.errors import TatorError

log = logging.getLogger(__name__)

HASH = re.compile(r"[0-9a-f]{64}")
CHECKSUM = re.compile(rb'"crc32":"([0-9a-f]{8})"')
NO_CHECKSUM = "00000000"
SUFFIX = ".safetensors"
CLAIM_DIGITS = 3
RECOUNT_SECONDS = 60.0  # other processes write and prune too
STALE_SECONDS = 3600.0  # what a crash left half written
PIECE = 2**15  # elements; torch does not share fewer among threads
TYPES = {"F16": torch.float16, "F32": torch.float32, "F64": torch.float64, "BF16": torch.bfloat16}
TYPES |= {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8}
TYPES |= {"U8": torch.uint8, "BOOL": torch.bool}


class DamagedFile(TatorError):
    """A file that is not what was written."""


class EmbeddingStore:
    """A folder of embeddings within a bound; safe to prune by hand, shared by threads and processes."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Open the folder, which is made at the first write.

        Args:
            folder: of this store alone.
            max_bytes: beyond it the embeddings used longest ago are deleted; 0 keeps none.
        """
        self._folder = folder
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._bytes = 0
        self._counted: float | None = None

    def get(self, model: str, image: str) -> Embedding | None:
        """The embedding of a picture's content hash by a segmenter version, on the CPU; None when it is not here.

        A file that is damaged, or holds another model's embedding, is deleted.
        """
        path = self._path(model, image)
        if path is None:
            return None
        try:
            data = bytearray(path.read_bytes())
            os.utime(path)
            return _parse(data, model)
        except FileNotFoundError:
            return None
        except DamagedFile as error:
            log.warning("the embedding %s is damaged (%s) and will be made anew", path, error)
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the embedding %s cannot be read: %s", path, error)
        return None

    def contains(self, model: str, image: str) -> bool:
        """Whether there is a file, which counts as used now."""
        path = self._path(model, image)
        try:
            if path is None:
                return False
            os.utime(path)
        except OSError:
            return False
        return True

    def put(self, image: str, embedding: Embedding) -> bool:
        """Write an embedding; False, with a line in the log, where that is impossible.

        A file has its name only when it is complete.
        """
        path = self._path(embedding.model, image)
        if path is None:
            return False
        try:
            data = _serialize(embedding)
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, partial = tempfile.mkstemp(dir=path.parent, prefix=".")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                before = path.stat().st_size if path.exists() else 0
                Path(partial).replace(path)
            except OSError:
                Path(partial).unlink(missing_ok=True)
                raise
        except OSError as error:
            log.warning("the embedding of %s is not kept on disk: %s", image[:12], error)
            return False
        self._grew(len(data) - before)
        return True

    @contextmanager
    def claim(self, model: str, image: str) -> Iterator[None]:
        """Be the only one, among all processes that share the folder, who makes this picture's embedding.

        Waits for whoever has the claim; it ends with its process, however that ends. Files stay, some thousands at
        most, since one that is deleted while somebody waits for it could be claimed twice.
        """
        path = self._path(model, image)
        if path is None:
            yield
            return
        claims = path.parents[1] / "claims"
        try:
            claims.mkdir(parents=True, exist_ok=True)
            lock = FileLock(claims / f"{image[:CLAIM_DIGITS]}.lock")
            lock.acquire()
        except OSError as error:  # a full or read-only disk: better twice than never
            log.warning("the picture %s cannot be claimed: %s", image[:12], error)
            yield
            return
        try:
            yield
        finally:
            lock.release()

    @property
    def nbytes(self) -> int:
        """Bytes on disk; counted anew at times, since other processes write too."""
        with self._lock:
            if self._counted is None or time.monotonic() - self._counted > RECOUNT_SECONDS:
                self._count()
            return self._bytes

    def _path(self, model: str, image: str) -> Path | None:
        """None where nothing is kept, or the hash is none."""
        if not self.max_bytes or not model or not HASH.fullmatch(image):
            return None
        folder = re.sub(r"[^\w.+-]", "_", model).lstrip(".") or "_"
        return self._folder / folder / image[:2] / f"{image}{SUFFIX}"

    def _grew(self, nbytes: int) -> None:
        with self._lock:
            self._bytes += nbytes
            if self._counted is None or time.monotonic() - self._counted > RECOUNT_SECONDS:
                self._count()
            if self._bytes > self.max_bytes:
                self._prune()

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Time of last use, bytes and path of each file; those of a crash are deleted on the way."""
        for path in self._folder.rglob("*"):
            try:
                found = path.stat()
                if path.suffix == SUFFIX:
                    yield found.st_mtime, found.st_size, path
                elif path.is_file() and path.parent.name != "claims" and time.time() - found.st_mtime > STALE_SECONDS:
                    path.unlink(missing_ok=True)
            except FileNotFoundError:  # pruned by somebody else meanwhile
                continue

    def _count(self) -> None:
        self._bytes = sum(size for _, size, _ in self._files())
        self._counted = time.monotonic()

    def _prune(self) -> None:
        """Delete what was used longest ago until a tenth of the bound is free again; the newest always stays."""
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        gone = 0
        for _, size, path in files[:-1]:
            if total <= 0.9 * self.max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
            gone += 1
        self._bytes = total
        self._counted = time.monotonic()
        if gone:
            log.info("%d embeddings used longest ago were deleted; %.1f GB stay", gone, total / 1e9)


def _serialize(embedding: Embedding) -> bytearray:
    kept = {name: _compact(tensor) for name, tensor in embedding.tensors.items()}
    types = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in embedding.tensors.items()}
    metadata = {
        "model": embedding.model,
        "size_wh": json.dumps(embedding.size_wh),
        "types": json.dumps(types),
        "crc32": NO_CHECKSUM,
    }
    data = bytearray(save(kept, metadata))
    place = _checksum_place(data)
    data[place] = f"{zlib.crc32(data):08x}".encode()
    return data


def _compact(tensor: Tensor) -> Tensor:
    """The tensor on the CPU, in half precision where it is floating and its values fit."""
    here = tensor.detach().cpu().contiguous()
    if not here.is_floating_point():
        return here
    half = _converted(here, torch.float16)
    return half if np.isfinite(half.numpy()).all() else here


def _converted(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor, contiguous, in another type; piece by piece on this thread alone.

    Torch spreads larger work over a team of threads, and while others keep the cores busy its barriers make two
    milliseconds thirty.
    """
    if tensor.dtype == dtype:
        return tensor
    result = torch.empty(tensor.shape, dtype=dtype)
    for before, after in zip(tensor.view(-1).split(PIECE), result.view(-1).split(PIECE), strict=True):
        after.copy_(before)
    return result


def _checksum_place(data: bytearray) -> slice:
    found = CHECKSUM.search(data, 8, 8 + _header_bytes(data))
    if found is None:
        raise DamagedFile("it has no checksum")
    return slice(*found.span(1))


def _header_bytes(data: bytearray) -> int:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise DamagedFile("it ends early")
    return length


def _parse(data: bytearray, model: str) -> Embedding:
    """A file's bytes → embedding, without a copy of what has its type already.

    Raises:
        DamagedFile: the bytes are not what was written.
    """
    place = _checksum_place(data)
    said = bytes(data[place])
    data[place] = NO_CHECKSUM.encode()
    if f"{zlib.crc32(data):08x}".encode() != said:
        raise DamagedFile("its checksum differs")
    try:
        start = 8 + _header_bytes(data)
        header = json.loads(data[8:start])
        metadata = header.pop("__metadata__")
        if metadata["model"] != model:
            raise DamagedFile(f"it is of {metadata['model']}")
        width, height = json.loads(metadata["size_wh"])
        types = json.loads(metadata["types"])
        tensors = {
            name: _converted(_tensor(data, start, one), getattr(torch, types[name])) for name, one in header.items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedFile(f"its header lacks {error}") from error
    return Embedding(tensors, (int(width), int(height)), model)


def _tensor(data: bytearray, start: int, described: Mapping[str, Any]) -> Tensor:
    """One tensor of the file, sharing its memory; the layout is safetensors' own."""
    first, last = described["data_offsets"]
    dtype: torch.dtype = TYPES[described["dtype"]]
    shape: list[int] = described["shape"]
    if first == last:
        return torch.empty(shape, dtype=dtype)
    count = (last - first) // dtype.itemsize
    return torch.frombuffer(data, dtype=dtype, count=count, offset=start + first).reshape(shape)
