"""What a class encoder is: crops become points on the unit sphere, alike where they look alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tator_sdk.errors import TatorError


class EncoderError(TatorError):
    """An encoder could not be loaded or used; the message is one sentence for a person."""


class Encoder(Protocol):
    """An image encoder for crops.

    Attributes:
        version: names architecture and weights, e.g. ``starter-clip-3f2a91c0``; embeddings of
            different versions are never mixed.
        size: side of the crops it takes, in pixels.
        dim: length of its embeddings.
    """

    version: str
    size: int
    dim: int

    def embed(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """N crops, each (size, size, 3) uint8 RGB → (N, dim) float32 of L2 norm 1.

        Raises:
            EncoderError: a crop has another shape or dtype.
        """
        ...
