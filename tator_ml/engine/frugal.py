"""Models that answer where memory is short: others give theirs up, batches grow smaller, at last the CPU works."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tator_ml.engine.classify import HeadClassifier
from tator_ml.engine.concepts import Concept
from tator_ml.engine.encoders.base import Encoder
from tator_ml.engine.head import HeadError
from tator_ml.engine.memory import Ladder
from tator_ml.engine.messages import OutOfMemory
from tator_ml.engine.models import ClassModels
from tator_ml.engine.segmenters.base import (
    Candidates,
    ConceptFinder,
    Decoded,
    Embedding,
    FindsConcepts,
    Prompts,
    Segmenter,
)

T = TypeVar("T")
SMALLER_ENCODER = "use a smaller encoder"


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


class FrugalEncoder:
    """An encoder that embeds where memory is short: a quarter of the crops at a time.

    Attributes:
        version, size, dim: see :class:`Encoder`.
    """

    def __init__(self, encoder: Encoder, ladder: Ladder) -> None:
        self.version, self.size, self.dim = encoder.version, encoder.size, encoder.dim
        self._encoder = encoder
        self._ladder = ladder

    def embed(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """See :class:`Encoder`.

        Raises:
            OutOfMemory: not even a quarter at a time fits.
        """
        few = max(1, len(crops) // 4)

        def in_quarters() -> NDArray[np.float32]:
            parts = [self._encoder.embed(crops[first : first + few]) for first in range(0, len(crops), few)]
            return np.concatenate(parts)

        smaller = [("smaller batch", in_quarters)] if len(crops) > 1 else []
        return self._ladder.run("", lambda: self._encoder.embed(crops), *smaller, advice=SMALLER_ENCODER)


class FrugalModels:
    """:class:`ClassModels` that are loaded where memory is short, once others gave up what they hold."""

    def __init__(self, models: ClassModels, ladder: Ladder) -> None:
        self.usual_area = models.usual_area
        self.release = models.release
        self._models = models
        self._ladder = ladder

    def encoder(self, name: str) -> FrugalEncoder:
        """See :meth:`ClassModels.encoder`.

        Raises:
            EncoderError: it cannot be loaded.
            OutOfMemory: there is no room for it.
        """
        found = self._ladder.run("", lambda: self._models.encoder(name), advice=SMALLER_ENCODER)
        return FrugalEncoder(found, self._ladder)

    def classifier(self, version: str) -> HeadClassifier:
        """See :meth:`ClassModels.classifier`.

        Raises:
            UnknownHead: it was not put here.
            HeadError: it cannot be used, also for want of memory.
        """
        return self._of_head(lambda: self._models.classifier(version))

    def put_head(self, files: Mapping[str, bytes]) -> str:
        """See :meth:`ClassModels.put_head`.

        Raises:
            HeadError: it cannot be used, also for want of memory.
        """
        return self._of_head(lambda: self._models.put_head(files))

    def _of_head(self, work: Callable[[], T]) -> T:
        try:
            return self._ladder.run("", work, advice=SMALLER_ENCODER)
        except OutOfMemory as error:  # whoever clicked is better off with a box that has no class
            raise HeadError(str(error)) from None


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
