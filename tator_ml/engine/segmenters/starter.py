"""The starter segmenter, whose weights ship with Tator, behind the same protocol as the large ones."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tator_ml.engine.segmenters import STARTER_FILE, weights
from tator_ml.engine.segmenters.base import Decoded, Embedding, Prompts
from tator_ml.engine.segmenters.sam1 import Frame
from tator_ml.engine.segmenters.starter_model import IMAGE_SIZE, StarterSam

STARTER_WEIGHTS = Path(__file__).parents[2] / "weights" / STARTER_FILE


class StarterSegmenter:
    """A :class:`StarterSam`.

    Attributes:
        model: in evaluation mode, float32; it is only read, so threads may share it.
        version: see :class:`base.Segmenter`.
    """

    def __init__(self, model: StarterSam, version: str) -> None:
        self.model = model
        self.version = version
        self._frame = Frame(IMAGE_SIZE)
        self._device = model.mask_decoder.iou_token.weight.device

    @torch.no_grad()
    def encode(self, image: NDArray[np.uint8]) -> Embedding:
        """Picture (H, W, 3) uint8 RGB → ``embedding``, ``skip8``, ``skip4`` and ``skip2``."""
        height, width = image.shape[:2]
        inner_h, inner_w = self._frame.inner_hw((width, height))
        # Averaging when shrinking: the training scenes are drawn without aliasing.
        how = cv2.INTER_AREA if max(height, width) > IMAGE_SIZE else cv2.INTER_LINEAR
        square = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        square[:inner_h, :inner_w] = cv2.resize(image, (inner_w, inner_h), interpolation=how)
        pixels = torch.as_tensor(square, device=self._device).permute(2, 0, 1)[None].float()
        features = {key: value.contiguous() for key, value in self.model.encode(pixels).items()}
        return Embedding(features, (width, height), self.version)

    @torch.no_grad()
    def decode(self, embedding: Embedding, prompts: Prompts, multimask: bool) -> Decoded:
        """Prompts in pixels of the picture → logits (B, K, 128, 128).

        The model gives four masks at once: with ``multimask`` the last three, else the first.
        """
        pair, boxes = self._frame.prompts(prompts, embedding.size_wh, self._device)
        points, labels = pair or (None, None)
        rows = {
            key: value.to(self._device).expand(len(prompts), -1, -1, -1) for key, value in embedding.tensors.items()
        }
        masks, iou = self.model.decode(rows, points, labels, boxes)
        chosen = slice(1, None) if multimask else slice(0, 1)
        return Decoded(masks[:, chosen], iou[:, chosen])

    def full_size(self, embedding: Embedding, low_res: Tensor) -> Tensor:
        """Logits (K, 128, 128) → (K, H, W) float32."""
        return self._frame.full_size(low_res, embedding.size_wh)


def load(path: Path, device: torch.device | str, name: str = "starter") -> StarterSegmenter:
    """Load the starter segmenter from its safetensors, half precision cast up to float32.

    Raises:
        WeightsUnreadable: the file is damaged or of another architecture.
    """
    state = weights.read(path)
    model = StarterSam()
    weights.fill(model, state, path, name)
    return StarterSegmenter(model.to(device), f"{name}-{weights.fingerprint(path)}")
