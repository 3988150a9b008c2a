"""What a segmenter is: a picture becomes an embedding once, prompts on it become masks at once.

Nothing about a picture is kept in the model: decoding takes the embedding as an argument, so
threads cannot mix up pictures and an embedding can be kept, stored and shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tator_ml.engine.concepts import Concept


@dataclass(frozen=True)
class Embedding:
    """What a segmenter keeps of one picture.

    Attributes:
        tensors: by name, whatever the decoder needs, batch dimension 1.
        size_wh: the picture's width and height in pixels.
        model: ``Segmenter.version`` of the model that made it.
    """

    tensors: dict[str, Tensor]
    size_wh: tuple[int, int]
    model: str

    @property
    def nbytes(self) -> int:
        """Memory of the tensors in bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


@dataclass(frozen=True)
class Prompts:
    """A batch of B prompts on one picture, in pixels of the picture.

    Either ``points`` with ``labels``, or ``boxes``, or both.

    Attributes:
        points: (B, N, 2) float32, x and y, or None.
        labels: (B, N) int64; 1 positive, 0 negative, -1 padding; or None.
        boxes: (B, 4) float32 xyxy, or None.
    """

    points: NDArray[np.float32] | None = None
    labels: NDArray[np.int64] | None = None
    boxes: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        some = self.boxes if self.points is None else self.points
        return 0 if some is None else len(some)


@dataclass(frozen=True)
class Decoded:
    """Answers to a batch of prompts, still in the decoder's resolution.

    Attributes:
        low_res: (B, K, h, w) float32 mask logits; K is 3 with ``multimask``, else 1.
        iou: (B, K) float32, the model's own estimate of each mask's IoU.
    """

    low_res: Tensor = field(repr=False)
    iou: Tensor


@dataclass(frozen=True)
class Candidates:
    """All Q candidates for one concept, whatever their scores.

    Attributes:
        scores: (Q,) float32, 0..1.
        xyxy: (Q, 4) float32 pixels of the picture, perhaps beyond its edges.
        masks: (Q, h, w) float32 probabilities in the decoder's resolution; None where none were asked for.
    """

    scores: Tensor
    xyxy: Tensor
    masks: Tensor | None = field(repr=False)


class ConceptFinder(Protocol):
    """Finds every instance of phrases and exemplars in embeddings of a segmenter.

    Attributes:
        together: how many concepts its device computes well at once, in a fraction of a second.
    """

    together: int

    def look(self, embedding: Embedding, masks: bool) -> Embedding:
        """What all concepts of a question share, made once for them; less where no masks are wanted."""
        ...

    def find(self, seen: Embedding, concepts: Sequence[Concept], masks: bool) -> list[Candidates]:
        """Concepts with a phrase, an exemplar or both → candidates for each, in their order."""
        ...

    def full_size(self, masks: Tensor, size_wh: tuple[int, int]) -> Tensor:
        """Probabilities (K, h, w) → (K, H, W) in the picture's resolution; from 0.5 a pixel belongs to the mask."""
        ...


@runtime_checkable
class FindsConcepts(Protocol):
    """A segmenter whose embeddings serve for concepts too."""

    def concepts(self) -> ConceptFinder | None:
        """What finds them; None where this one does not."""
        ...


@runtime_checkable
class Pausable(Protocol):
    """A segmenter whose encoding can be left between parts, so that a click need not wait for all of it."""

    def parts(self) -> Sequence[nn.Module]:
        """Modules that run one after the other, each a fraction of the encoding."""
        ...


class Segmenter(Protocol):
    """A promptable segmentation model; one that takes long to encode is :class:`Pausable` too.

    Attributes:
        version: names architecture and weights, e.g. ``sam1-vit_b-3f2a91c0``; embeddings of
            different versions are never mixed.
    """

    version: str

    def encode(self, image: NDArray[np.uint8]) -> Embedding:
        """Picture (H, W, 3) uint8 RGB → embedding."""
        ...

    def decode(self, embedding: Embedding, prompts: Prompts, multimask: bool) -> Decoded:
        """Prompts in pixels of the picture → mask logits in the decoder's resolution."""
        ...

    def full_size(self, embedding: Embedding, low_res: Tensor) -> Tensor:
        """Mask logits (K, h, w) → (K, H, W) logits in the picture's resolution, float32."""
        ...


def blocks(encoder: nn.Module) -> list[nn.Module]:
    """The transformer blocks of an image encoder, in their order: all members of its lists named ``blocks``."""
    lists = [module for name, module in encoder.named_modules() if name.split(".")[-1] == "blocks"]
    return [block for one in lists for block in one.children()]
