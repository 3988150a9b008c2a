"""What is done when memory runs short: things are given up one after the other, and the click is answered."""

from __future__ import annotations

import ctypes
import gc
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeVar

import psutil
import torch

from tator_ml.engine.messages import OutOfMemory
from tator_sdk.errors import TatorError

log = logging.getLogger(__name__)
T = TypeVar("T")

# torch raises a plain RuntimeError on the CPU and on MPS, cuBLAS and OpenCV errors of their own
SAYINGS = ("out of memory", "can't allocate memory", "insufficient memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory did not suffice."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, TatorError) or not isinstance(error, Exception):
        return False
    said = str(error).lower()
    return any(saying in said for saying in SAYINGS)


def give_back() -> None:
    """Return what is free to the device and the system: both allocators keep it otherwise."""
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


def process_bytes() -> int:
    """Resident memory of this process."""
    return int(psutil.Process().memory_info().rss)


def system_bytes() -> tuple[int, int]:
    """Bytes of this machine's memory that can be had, and in all."""
    memory = psutil.virtual_memory()
    return int(memory.available), int(memory.total)


def device_bytes(device: str) -> tuple[int, int, int] | tuple[None, None, None]:
    """Bytes of an accelerator held by this process, free, and in all; None where it is not CUDA."""
    if not device.startswith("cuda") or not torch.cuda.is_available():
        return None, None, None
    free, total = torch.cuda.mem_get_info(device)
    return torch.cuda.memory_reserved(device), free, total


class Ladder:
    """Tries again with less; each step is logged and counted."""

    def __init__(self, relieve: Callable[[str], Iterator[str]]) -> None:
        """Prepare.

        Args:
            relieve: frees what others hold, sparing the segmenter of a name; yields a name for each thing given up.
        """
        self._relieve = relieve
        self.steps: Counter[str] = Counter()

    def run(
        self,
        segmenter: str,
        work: Callable[[], T],
        *others: tuple[str, Callable[[], T]],
        advice: str = "use a smaller segmenter",
    ) -> T:
        """Do ``work``; short of memory, free what others hold and do it again, then go the other ways.

        Args:
            segmenter: name of the one at work, which is not released; empty for the engine's own.
            work: what is to be done.
            others: names and ways to do the same with less memory, in order.
            advice: what a person can do where nothing helped.

        Raises:
            OutOfMemory: no way led to an answer.
        """
        said, result = _attempt(work)
        if said is None:
            return result[0]
        log.warning("out of memory: %s", said)
        for given_up in self._relieve(segmenter):
            self._count(given_up)
        give_back()
        for name, way in (("tried again", work), *others):
            self._count(name)
            said, result = _attempt(way)
            if said is None:
                return result[0]
            give_back()
        self._count("not answered")
        raise OutOfMemory(f"There is not enough memory for this picture; {advice}, or end what else uses the device.")

    def _count(self, name: str) -> None:
        self.steps[name] += 1
        log.warning("memory is short: %s", name)


def _attempt(work: Callable[[], T]) -> tuple[str | None, list[T]]:
    """None and the result, or what the error for want of memory said.

    The error itself ends here: its traceback holds all that the attempt had allocated.
    """
    try:
        return None, [work()]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return str(error).split("\n")[0] or type(error).__name__, []
