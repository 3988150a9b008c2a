"""What is done when memory runs short: things are given up one after the other, and the click is answered."""

from __future__ import annotations

import ctypes
import gc
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from tator_ml.engine.concepts import Concept
from tator_ml.engine.messages import OutOfMemory
from tator_ml.engine.segmenters.base import (
    Candidates,
    ConceptFinder,
    Decoded,
    Embedding,
    FindsConcepts,
    Prompts,
    Segmenter,
)
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


class Frugal:
    """A segmenter that answers where memory is short: with smaller batches, at last on the CPU.

    Attributes:
        name: as in the settings.
        version: see :class:`Segmenter`.
    """

    def __init__(
        self, name: str, segmenter: Segmenter, ladder: Ladder, on_cpu: Callable[[], Segmenter] | None = None
    ) -> None:
        """Wrap a segmenter.

        Args:
            name: as in the settings.
            segmenter: on the device.
            ladder: counts the steps.
            on_cpu: the same segmenter on the CPU, None where that is no help.
        """
        self.version = segmenter.version
        self.name = name
        self._segmenter = segmenter
        self._ladder = ladder
        self._on_cpu = on_cpu

    def encode(self, image: NDArray[np.uint8]) -> Embedding:
        """See :class:`Segmenter`."""
        return self._ladder.run(
            self.name,
            lambda: self._segmenter.encode(image),
            *self._instead(lambda segmenter: segmenter.encode(image)),
        )

    def decode(self, embedding: Embedding, prompts: Prompts, multimask: bool) -> Decoded:
        """See :class:`Segmenter`."""
        few = max(1, len(prompts) // 4)

        def in_parts(segmenter: Segmenter, size: int) -> Decoded:
            parts = [segmenter.decode(embedding, part, multimask) for part in _parts(prompts, size)]
            return Decoded(torch.cat([one.low_res for one in parts]), torch.cat([one.iou for one in parts]))

        smaller = [("smaller batch", few), ("prompts one by one", 1)] if len(prompts) > 1 else []
        return self._ladder.run(
            self.name,
            lambda: self._segmenter.decode(embedding, prompts, multimask),
            *((name, lambda size=size: in_parts(self._segmenter, size)) for name, size in smaller),
            *self._instead(lambda segmenter: in_parts(segmenter, few)),
        )

    def full_size(self, embedding: Embedding, low_res: Tensor) -> Tensor:
        """See :class:`Segmenter`."""
        return self._ladder.run(
            self.name,
            lambda: self._segmenter.full_size(embedding, low_res),
            *self._instead(lambda segmenter: segmenter.full_size(embedding, low_res.cpu())),
        )

    def concepts(self) -> FrugalFinder | None:
        """See :class:`FindsConcepts`."""
        finder = _finder(self._segmenter)
        return None if finder is None else FrugalFinder(self.name, finder, self._ladder, self._instead)

    def _instead(self, way: Callable[[Segmenter], T]) -> list[tuple[str, Callable[[], T]]]:
        """The last way, where there is one: a copy of the model on the CPU does it."""
        on_cpu = self._on_cpu
        return [] if on_cpu is None else [("on the CPU", lambda: way(on_cpu()))]


class FrugalFinder:
    """A :class:`ConceptFinder` that answers where memory is short: concept by concept, at last on the CPU.

    Attributes:
        together: see :class:`ConceptFinder`.
    """

    def __init__(self, name: str, finder: ConceptFinder, ladder: Ladder, instead: _Instead) -> None:
        """Wrap a finder.

        Args:
            name: of the segmenter, as in the settings.
            finder: on the device.
            ladder: counts the steps.
            instead: makes the way of its segmenter's copy on the CPU, where there is one.
        """
        self.together = finder.together
        self._name = name
        self._finder = finder
        self._ladder = ladder
        self._instead = instead

    def look(self, embedding: Embedding, masks: bool) -> Embedding:
        """See :class:`ConceptFinder`."""
        return self._ladder.run(
            self._name,
            lambda: self._finder.look(embedding, masks),
            *self._instead(lambda segmenter: _sure(segmenter).look(embedding, masks)),
        )

    def find(self, seen: Embedding, concepts: Sequence[Concept], masks: bool) -> list[Candidates]:
        """See :class:`ConceptFinder`."""

        def one_by_one(finder: ConceptFinder) -> list[Candidates]:
            return [finder.find(seen, [concept], masks)[0] for concept in concepts]

        smaller = [("concepts one by one", lambda: one_by_one(self._finder))] if len(concepts) > 1 else []
        return self._ladder.run(
            self._name,
            lambda: self._finder.find(seen, concepts, masks),
            *smaller,
            *self._instead(lambda segmenter: one_by_one(_sure(segmenter))),
        )

    def full_size(self, masks: Tensor, size_wh: tuple[int, int]) -> Tensor:
        """See :class:`ConceptFinder`."""
        return self._finder.full_size(masks, size_wh)


class _Instead(Protocol):
    def __call__(self, way: Callable[[Segmenter], T]) -> list[tuple[str, Callable[[], T]]]: ...


def _finder(segmenter: Segmenter) -> ConceptFinder | None:
    return segmenter.concepts() if isinstance(segmenter, FindsConcepts) else None


def _sure(segmenter: Segmenter) -> ConceptFinder:
    """Of a copy of a segmenter that has one."""
    finder = _finder(segmenter)
    if finder is None:
        raise TypeError(f"{segmenter.version} lost its concepts")
    return finder


def _parts(prompts: Prompts, size: int) -> Iterator[Prompts]:
    """The rows of a batch, at most ``size`` at a time."""
    for first in range(0, len(prompts), size):
        rows = slice(first, first + size)
        yield Prompts(
            None if prompts.points is None else prompts.points[rows],
            None if prompts.labels is None else prompts.labels[rows],
            None if prompts.boxes is None else prompts.boxes[rows],
        )
