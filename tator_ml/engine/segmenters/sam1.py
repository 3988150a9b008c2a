"""SAM 1 (https://arxiv.org/abs/2304.02643) through ``segment_anything``.

Answers are those of ``segment_anything.SamPredictor``, without its hidden state.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import resize, to_pil_image

from tator_ml.engine.segmenters import weights
from tator_ml.engine.segmenters.base import Decoded, Embedding, Prompts, blocks


@dataclass(frozen=True)
class Frame:
    """The square a SAM 1 model looks at: the picture, scaled to fill it, at its top left corner.

    Follows segment_anything's ``ResizeLongestSide`` and ``Sam.postprocess_masks``.

    Attributes:
        side: of the square in pixels.
    """

    side: int

    def inner_hw(self, size_wh: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the scaled picture in the square; never nothing, where upstream fails."""
        width, height = size_wh
        inner_h, inner_w = ResizeLongestSide.get_preprocess_shape(height, width, self.side)
        return max(1, inner_h), max(1, inner_w)

    def scaled(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Picture (H, W, 3) uint8 → the same at its size in the square."""
        height, width = image.shape[:2]
        return np.array(resize(to_pil_image(image), self.inner_hw((width, height))))

    def prompts(
        self, prompts: Prompts, size_wh: tuple[int, int], device: torch.device
    ) -> tuple[tuple[Tensor, Tensor] | None, Tensor | None]:
        """Prompts in pixels of the picture → in pixels of the square, as ``PromptEncoder`` takes them.

        Returns:
            Points (B, N, 2) float32 with labels (B, N) int32, or None; boxes (B, 4) float32, or None.

        Raises:
            ValueError: points come without labels.
        """
        width, height = size_wh
        inner_h, inner_w = self.inner_hw(size_wh)
        scale = np.array([inner_w / width, inner_h / height])  # in double precision, as upstream
        points = boxes = None
        if prompts.points is not None:
            if prompts.labels is None:
                raise ValueError("points need labels")
            points = (
                torch.as_tensor(prompts.points * scale, dtype=torch.float32, device=device),
                torch.as_tensor(prompts.labels, dtype=torch.int32, device=device),
            )
        if prompts.boxes is not None:
            corners = prompts.boxes.reshape(-1, 2, 2) * scale
            boxes = torch.as_tensor(corners.reshape(-1, 4), dtype=torch.float32, device=device)
        return points, boxes

    def full_size(self, low_res: Tensor, size_wh: tuple[int, int]) -> Tensor:
        """Logits (K, h, w) over the square → (K, H, W) float32 over the picture."""
        width, height = size_wh
        inner_h, inner_w = self.inner_hw(size_wh)
        whole = (self.side, self.side)
        square = F.interpolate(low_res.float()[None], whole, mode="bilinear", align_corners=False)
        inner = square[..., :inner_h, :inner_w]
        return F.interpolate(inner, (height, width), mode="bilinear", align_corners=False)[0]


class Sam1Segmenter:
    """A ``segment_anything.Sam``, or a model of that shape with another image encoder.

    Attributes:
        sam: the model in evaluation mode; it is only read, so threads may share it.
        version: see :class:`base.Segmenter`.
    """

    def __init__(self, sam: Sam, version: str) -> None:
        self.sam = sam
        self.version = version
        self._frame = Frame(sam.image_encoder.img_size)

    def parts(self) -> list[nn.Module]:
        """The encoder's blocks; see :class:`base.Pausable`."""
        return blocks(self.sam.image_encoder)

    @torch.no_grad()
    def encode(self, image: NDArray[np.uint8]) -> Embedding:
        """Picture (H, W, 3) uint8 RGB → ``image_embed`` (1, 256, 64, 64), as ``SamPredictor.set_image``."""
        height, width = image.shape[:2]
        scaled = torch.as_tensor(self._frame.scaled(image), device=self.sam.device)
        square = self.sam.preprocess(scaled.permute(2, 0, 1).contiguous()[None])
        # Contiguous, so that it can be stored as safetensors.
        features = self.sam.image_encoder(square).contiguous()
        return Embedding({"image_embed": features}, (width, height), self.version)

    @torch.no_grad()
    def decode(self, embedding: Embedding, prompts: Prompts, multimask: bool) -> Decoded:
        """Prompts in pixels of the picture → logits (B, K, 256, 256), as ``SamPredictor.predict_torch``.

        A point labelled -1 is SAM's own "not a point" token; SAM itself adds one to prompts
        without a box, so padding changes an answer slightly.
        """
        points, boxes = self._frame.prompts(prompts, embedding.size_wh, self.sam.device)
        sparse, dense = self.sam.prompt_encoder(points=points, boxes=boxes, masks=None)
        low_res, iou = self.sam.mask_decoder(
            image_embeddings=embedding.tensors["image_embed"].to(self.sam.device),
            image_pe=self.sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        return Decoded(low_res, iou)

    def full_size(self, embedding: Embedding, low_res: Tensor) -> Tensor:
        """Logits (K, 256, 256) → (K, H, W) float32, as ``Sam.postprocess_masks``."""
        return self._frame.full_size(low_res, embedding.size_wh)


def load(path: Path, device: torch.device | str, name: str) -> Sam1Segmenter:
    """Load ``sam1-vit_b``, ``sam1-vit_l`` or ``sam1-vit_h`` from a file.

    Raises:
        WeightsUnreadable: the file is damaged or of another architecture.
    """
    state = weights.read(path)
    sam = sam_model_registry[name.removeprefix("sam1-")](checkpoint=None)
    weights.fill(sam, state, path, name)
    return Sam1Segmenter(sam.to(device), f"{name}-{weights.fingerprint(path)}")
