"""A segmenter whose encoder computes in half precision; the decoder, which decides masks, stays in single."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tator_ml.engine.segmenters.base import (
    ConceptFinder,
    Decoded,
    Embedding,
    FindsConcepts,
    Pausable,
    Prompts,
    Segmenter,
)

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class HalfPrecision:
    """A segmenter under ``torch.autocast`` while it encodes.

    Attributes:
        version: the segmenter's own with the precision, since their embeddings are never mixed.
    """

    def __init__(self, segmenter: Segmenter, precision: str, device: str) -> None:
        """Wrap a segmenter.

        Args:
            segmenter: on the device.
            precision: ``bfloat16`` or ``float16``.
            device: its name.
        """
        self.version = f"{segmenter.version}-{precision}"
        self._segmenter = segmenter
        self._dtype = DTYPES[precision]
        self._kind = torch.device(device).type

    def parts(self) -> Sequence[nn.Module]:
        """See :class:`Pausable`."""
        return self._segmenter.parts() if isinstance(self._segmenter, Pausable) else ()

    def concepts(self) -> ConceptFinder | None:
        """See :class:`FindsConcepts`; it decides too, so it stays in single precision."""
        return self._segmenter.concepts() if isinstance(self._segmenter, FindsConcepts) else None

    def encode(self, image: NDArray[np.uint8]) -> Embedding:
        """See :class:`Segmenter`; the tensors are float32 again, as the decoder takes them."""
        with torch.autocast(self._kind, self._dtype):
            made = self._segmenter.encode(image)
        tensors = {name: tensor.float() for name, tensor in made.tensors.items()}
        return replace(made, tensors=tensors, model=self.version)

    def decode(self, embedding: Embedding, prompts: Prompts, multimask: bool) -> Decoded:
        """See :class:`Segmenter`."""
        return self._segmenter.decode(embedding, prompts, multimask)

    def full_size(self, embedding: Embedding, low_res: Tensor) -> Tensor:
        """See :class:`Segmenter`."""
        return self._segmenter.full_size(embedding, low_res)
