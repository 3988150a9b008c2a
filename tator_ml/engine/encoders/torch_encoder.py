"""What encoders that run on torch share: checked crops, batches, mean and deviation, a digest of the weights."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tator_ml.engine.encoders.base import EncoderError

BATCH = 64  # crops that go through the image tower together, so that memory stays bounded


@dataclass(frozen=True)
class Preprocess:
    """What the model subtracts from and divides channels (0..1, RGB) by."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class TorchEncoder(ABC):
    """An ``Encoder`` around a torch model. Subclasses say what the model makes of pixels.

    Attributes:
        model: in evaluation mode, without gradients.
        device: where it runs.
        version: names architecture and weights.
        size: side of the crops in pixels.
        dim: length of the embeddings; asked of the model, once, when it is built.
    """

    def __init__(
        self, model: nn.Module, version: str, size: int, preprocess: Preprocess | None, device: str = "cpu"
    ) -> None:
        """Take a model.

        Args:
            model: is moved to the device and set to answer.
            version: see :class:`base.Encoder`.
            size: side of the crops in pixels.
            preprocess: mean and deviation; None where ``prepared`` is overridden.
            device: where torch runs it.

        Raises:
            EncoderError: the model does not give one vector for each crop.
        """
        self.model = model.to(device).eval().requires_grad_(False)
        self.device = torch.device(device)
        self.version = version
        self.size = size
        if preprocess is not None:
            self.mean = torch.tensor(preprocess.mean, device=device).view(1, 3, 1, 1)
            self.std = torch.tensor(preprocess.std, device=device).view(1, 3, 1, 1)
        probe = self.embed_pixels(torch.zeros(2, 3, size, size, dtype=torch.uint8))
        if probe.ndim != 2 or len(probe) != 2:
            raise EncoderError(f"{version} does not give one vector for each crop; choose another encoder.")
        self.dim = probe.shape[1]

    @abstractmethod
    def features(self, pixels: Tensor) -> Tensor:
        """What the model makes of prepared pixels (N, 3, size, size): (N, dim), of any length."""

    def prepared(self, pixels: Tensor) -> Tensor:
        """Pixels (N, 3, size, size), 0..255 → float32 as the model wants them, on its device."""
        return (pixels.to(self.device, torch.float32) / 255 - self.mean) / self.std

    def embed(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """N crops, each (size, size, 3) uint8 RGB → (N, dim) float32 of L2 norm 1.

        Raises:
            EncoderError: a crop has another shape or dtype.
        """
        wanted = (self.size, self.size, 3)
        for crop in crops:
            if crop.shape != wanted or crop.dtype != np.uint8:
                raise EncoderError(f"{self.version} takes crops of {wanted} uint8, not {crop.shape} {crop.dtype}.")
        if not len(crops):
            return np.zeros((0, self.dim), np.float32)
        parts = []
        for first in range(0, len(crops), BATCH):
            pixels = torch.from_numpy(np.stack(crops[first : first + BATCH])).permute(0, 3, 1, 2)
            parts.append(self.embed_pixels(pixels).cpu().numpy())
        return np.concatenate(parts)

    @torch.inference_mode()
    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """Crops (N, 3, size, size), values 0..255 → (N, dim) float32 of L2 norm 1."""
        return nn.functional.normalize(self.features(self.prepared(pixels)).float(), dim=-1)


def weights_digest(module: nn.Module, also: str = "") -> str:
    """Eight hexadecimal digits that stand for a module's weights: names, values, dtypes.

    Args:
        module: its state dict is digested.
        also: what else decides the embeddings, such as mean and deviation.
    """
    digest = hashlib.sha256(also.encode())
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:8]


def square_side(width_height: int | Sequence[int]) -> int:
    """The side of the square that a model takes.

    Raises:
        EncoderError: it takes something else.
    """
    sides = {width_height} if isinstance(width_height, int) else set(width_height)
    if len(sides) != 1:
        raise EncoderError(f"Crops are square, but this model takes pictures of {width_height} pixels.")
    return int(sides.pop())


def first_line(error: Exception) -> str:
    """The first line of an error's message; its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
