"""MobileSAM (https://arxiv.org/abs/2306.14289): SAM 1 with a TinyViT image encoder.

The published ``mobile_sam.pt`` is read without its project's code: prompt encoder and mask decoder
are SAM 1's, the encoder is timm's under other names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from timm.models.tiny_vit import TinyVit
from torch import Tensor, nn

from tator_ml.engine.segmenters import weights
from tator_ml.engine.segmenters.sam1 import Sam1Segmenter

IMAGE_SIZE = 1024
WIDTH = 256
STRIDE = 16

# Published names → ours, first match wins; None for what segmentation does not use.
_RENAMED: tuple[tuple[str, str | None], ...] = (
    (r"image_encoder\.(norm_)?head\..*", None),
    (r".*\.attention_bias_idxs", None),
    (r"image_encoder\.patch_embed\.seq\.0\.", "image_encoder.vit.patch_embed.conv1."),
    (r"image_encoder\.patch_embed\.seq\.2\.", "image_encoder.vit.patch_embed.conv2."),
    # TinyViT downsamples at the end of a layer, timm at the beginning of the next stage.
    (r"image_encoder\.layers\.0\.downsample\.", "image_encoder.vit.stages.1.downsample."),
    (r"image_encoder\.layers\.1\.downsample\.", "image_encoder.vit.stages.2.downsample."),
    (r"image_encoder\.layers\.2\.downsample\.", "image_encoder.vit.stages.3.downsample."),
    (r"image_encoder\.layers\.", "image_encoder.vit.stages."),
)


def _tiny_vit() -> Any:  # timm types the attributes too loosely to replace them
    return TinyVit(
        embed_dims=(64, 128, 160, 320),
        depths=(2, 2, 6, 2),
        num_heads=(2, 4, 5, 10),
        window_sizes=(7, 7, 14, 7),
        num_classes=0,
        global_pool="",
    )


class MobileEncoder(nn.Module):
    """TinyViT-5M with its last downsampling left out, and SAM's neck.

    Attributes:
        img_size: side of the square it looks at, as ``Sam`` asks for.
    """

    def __init__(self, img_size: int) -> None:
        super().__init__()
        self.img_size = img_size
        self.vit = _tiny_vit()
        self.vit.head = nn.Identity()
        self.vit.stages[3].downsample.conv2.conv.stride = (1, 1)
        self.neck = nn.Sequential(
            nn.Conv2d(320, WIDTH, 1, bias=False),
            LayerNorm2d(WIDTH),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
            LayerNorm2d(WIDTH),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Normalised square (B, 3, S, S) → features (B, 256, S / 16, S / 16)."""
        return cast(Tensor, self.neck(self.vit(image)))


def build(image_size: int) -> Sam:
    """MobileSAM without weights, as ``build_sam_vit_t`` of the MobileSAM project."""
    grid = (image_size // STRIDE, image_size // STRIDE)
    return Sam(
        image_encoder=MobileEncoder(image_size),
        prompt_encoder=PromptEncoder(
            embed_dim=WIDTH,
            image_embedding_size=grid,
            input_image_size=(image_size, image_size),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=WIDTH,
            transformer=TwoWayTransformer(depth=2, embedding_dim=WIDTH, mlp_dim=2048, num_heads=8),
        ),
    )


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published state dict → that of :func:`build`; names that are not known stay as they are."""
    ours = {}
    for key, value in state.items():
        new = _new_name(key)
        if new is not None:
            ours[new] = value
    return ours


def _new_name(key: str) -> str | None:
    for pattern, replacement in _RENAMED:
        match = re.match(pattern, key)
        if match:
            if replacement is None:
                return None
            return (replacement + key[match.end() :]).replace(".c.weight", ".conv.weight")
    return key


def load(path: Path, device: torch.device | str, name: str = "mobile_sam") -> Sam1Segmenter:
    """Load MobileSAM from the published file, or its tensors as safetensors.

    Raises:
        WeightsUnreadable: the file is damaged or of another architecture.
    """
    state = renamed(weights.read(path))
    sam = build(IMAGE_SIZE)
    weights.fill(sam, state, path, name)
    return Sam1Segmenter(sam.to(device), f"{name}-{weights.fingerprint(path)}")
