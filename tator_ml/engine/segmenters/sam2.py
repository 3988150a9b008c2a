"""SAM 2.1 (https://arxiv.org/abs/2408.00714) on single pictures through ``sam2``.

Answers are those of ``sam2.sam2_image_predictor.SAM2ImagePredictor``, without its hidden state.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sam2.build_sam import build_sam2
from sam2.modeling.sam2_base import SAM2Base
from sam2.utils.transforms import SAM2Transforms
from torch import Tensor, nn

from tator_ml.engine.segmenters import weights
from tator_ml.engine.segmenters.base import Decoded, Embedding, Prompts, blocks

CONFIGS = {
    "sam2-tiny": "configs/sam2.1/sam2.1_hiera_t.yaml",
    "sam2-small": "configs/sam2.1/sam2.1_hiera_s.yaml",
    "sam2-base_plus": "configs/sam2.1/sam2.1_hiera_b+.yaml",
    "sam2-large": "configs/sam2.1/sam2.1_hiera_l.yaml",
}
_TOP_LEFT, _BOTTOM_RIGHT = 2, 3  # labels of a box's corners among points


class Sam2Segmenter:
    """A ``SAM2Base`` model used on single pictures.

    Attributes:
        sam: the model in evaluation mode; threads may share it.
        version: see :class:`base.Segmenter`.
    """

    def __init__(self, sam: SAM2Base, version: str) -> None:
        self.sam = sam
        self.version = version
        # Holes and sprinkles are left alone, as the predictor does by default.
        self._frame = SAM2Transforms(resolution=sam.image_size, mask_threshold=0.0)

    def parts(self) -> list[nn.Module]:
        """The encoder's blocks; see :class:`base.Pausable`."""
        return blocks(self.sam.image_encoder)

    @torch.no_grad()
    def encode(self, image: NDArray[np.uint8]) -> Embedding:
        """Picture (H, W, 3) uint8 RGB → features, as ``SAM2ImagePredictor.set_image``.

        Returns:
            ``image_embed`` (1, 256, 64, 64), ``high_res_0`` (1, 32, 256, 256) and ``high_res_1``
            (1, 64, 128, 128).
        """
        height, width = image.shape[:2]
        # torch shares the array's memory: it must not be read-only or flipped.
        own = np.require(image, requirements=["C", "W"])
        square = self._frame(own)[None].to(self.sam.device)
        levels = self.sam.forward_image(square)["backbone_fpn"][-self.sam.num_feature_levels :]
        *fine, coarse = levels
        if self.sam.directly_add_no_mem_embed:
            coarse = coarse + self.sam.no_mem_embed.view(1, -1, 1, 1)
        tensors = {"image_embed": coarse, **{f"high_res_{level}": value for level, value in enumerate(fine)}}
        # Contiguous, so that they can be stored as safetensors.
        tensors = {key: value.contiguous() for key, value in tensors.items()}
        return Embedding(tensors, (width, height), self.version)

    @torch.no_grad()
    def decode(self, embedding: Embedding, prompts: Prompts, multimask: bool) -> Decoded:
        """Prompts in pixels of the picture → logits (B, K, 256, 256), as ``SAM2ImagePredictor.predict``.

        Without ``multimask`` an unstable single mask gives way to the best of three, as upstream.
        The logits are not yet limited to ±32, which the predictor does for show after it has
        enlarged them. A point labelled -1 is SAM's own "not a point" token.
        """
        coords, labels = self._as_points(prompts, embedding.size_wh)
        sparse, dense = self.sam.sam_prompt_encoder(points=(coords, labels), boxes=None, masks=None)
        tensors = {key: value.to(self.sam.device) for key, value in embedding.tensors.items()}
        # Upstream's layout in memory: with another the same sums come out a few 1e-7 apart.
        features = tensors["image_embed"].contiguous(memory_format=torch.channels_last)
        low_res, iou, _, _ = self.sam.sam_mask_decoder(
            image_embeddings=features,
            image_pe=self.sam.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            repeat_image=len(coords) > 1,
            high_res_features=[tensors["high_res_0"], tensors["high_res_1"]],
        )
        return Decoded(low_res, iou)

    def _as_points(self, prompts: Prompts, size_wh: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Points and boxes → (B, N, 2) in the model's frame and (B, N) labels, boxes' corners first."""
        device, size_hw = self.sam.device, size_wh[::-1]
        coords, labels = [], []
        if prompts.boxes is not None:
            boxes = torch.as_tensor(prompts.boxes, dtype=torch.float32, device=device)
            corners = self._frame.transform_boxes(boxes, normalize=True, orig_hw=size_hw)
            kinds = torch.tensor([[_TOP_LEFT, _BOTTOM_RIGHT]], dtype=torch.int32, device=device)
            coords.append(corners)
            labels.append(kinds.repeat(len(corners), 1))
        if prompts.points is not None:
            if prompts.labels is None:
                raise ValueError("points need labels")
            points = torch.as_tensor(prompts.points, dtype=torch.float32, device=device)
            coords.append(self._frame.transform_coords(points, normalize=True, orig_hw=size_hw))
            labels.append(torch.as_tensor(prompts.labels, dtype=torch.int32, device=device))
        return torch.cat(coords, dim=1), torch.cat(labels, dim=1)

    def full_size(self, embedding: Embedding, low_res: Tensor) -> Tensor:
        """Logits (K, 256, 256) → (K, H, W) float32, as ``SAM2Transforms.postprocess_masks``."""
        masks: Tensor = self._frame.postprocess_masks(low_res[None], embedding.size_wh[::-1])
        return masks[0]


def load(path: Path, device: torch.device | str, name: str) -> Sam2Segmenter:
    """Load ``sam2-tiny``, ``sam2-small``, ``sam2-base_plus`` or ``sam2-large`` from a file of SAM 2.1.

    Raises:
        WeightsUnreadable: the file is damaged or of another architecture.
    """
    state = weights.read(path)
    sam = build_sam2(CONFIGS[name], ckpt_path=None, device="cpu")
    weights.fill(sam, state, path, name)
    return Sam2Segmenter(sam.to(device), f"{name}-{weights.fingerprint(path)}")
