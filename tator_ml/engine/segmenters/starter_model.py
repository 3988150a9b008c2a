"""The starter segmenter's network: SAM's prompt encoder and mask decoder over a small U-Net.

What differs from SAM 1 (https://arxiv.org/abs/2304.02643), and why:

- The encoder is convolutional: it learns from thousands of scenes, not millions of photographs.
- Its features at strides 8, 4 and 2 join the decoder's upscaling, as in SAM 2
  (https://arxiv.org/abs/2408.00714), so that masks have half the picture's resolution.
- Prompts are also drawn into SAM's dense mask input, which spares the cross-attention from
  learning where a click is.
"""

from __future__ import annotations

from typing import cast

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from segment_anything.modeling.prompt_encoder import PositionEmbeddingRandom
from torch import Tensor, nn

IMAGE_SIZE = 256
EMBEDDING_SIZE = 16
WIDTH = 96
PROMPT_MAP_SIZE = 4 * EMBEDDING_SIZE
SKIP_CHANNELS = (48, 24, 10)  # at strides 8, 4 and 2

Features = dict[str, Tensor]


class _Block(nn.Module):
    """Two 3 x 3 convolutions with a residual connection; the first may halve the resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.act(self.body(x) + self.shortcut(x)))


class StarterEncoder(nn.Module):
    """Picture (B, 3, 256, 256) → features at strides 16, 8, 4 and 2, each informed by the coarser."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(inplace=True))
        self.stage2 = _Block(24, 24)
        self.stage4 = nn.Sequential(_Block(24, 48, 2), _Block(48, 48))
        self.stage8 = nn.Sequential(_Block(48, 96, 2), _Block(96, 96))
        self.stage16 = nn.Sequential(_Block(96, 192, 2), _Block(192, 192), _Block(192, 192))
        self.neck = nn.Conv2d(192, WIDTH, 1)
        self.down8 = nn.Conv2d(192, 96, 1)
        self.fuse8 = _Block(96, 96)
        self.down4 = nn.Conv2d(96, 48, 1)
        self.fuse4 = _Block(48, 48)
        self.down2 = nn.Conv2d(48, 24, 1)
        self.fuse2 = _Block(24, 24)
        self.skip8 = nn.Conv2d(96, SKIP_CHANNELS[0], 1)
        self.skip4 = nn.Conv2d(48, SKIP_CHANNELS[1], 1)
        self.skip2 = nn.Conv2d(24, SKIP_CHANNELS[2], 1)

    def forward(self, image: Tensor) -> Features:
        """Normalised picture (B, 3, 256, 256) → ``embedding``, ``skip8``, ``skip4``, ``skip2``."""
        x2 = self.stage2(self.stem(image))
        x4 = self.stage4(x2)
        x8 = self.stage8(x4)
        x16 = self.stage16(x8)
        y8 = self.fuse8(x8 + _doubled(self.down8(x16)))
        y4 = self.fuse4(x4 + _doubled(self.down4(y8)))
        y2 = self.fuse2(x2 + _doubled(self.down2(y4)))
        return {
            "embedding": self.neck(x16),
            "skip8": self.skip8(y8),
            "skip4": self.skip4(y4),
            "skip2": self.skip2(y2),
        }


def _doubled(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")


class _Upscaling(nn.Module):
    """Prompted features (B, 96, 16, 16) and skips → per-pixel features (B, 10, 128, 128)."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = SKIP_CHANNELS
        self.up8 = nn.ConvTranspose2d(WIDTH, first, 2, 2)
        self.norm8 = nn.GroupNorm(1, first)
        self.mix8 = nn.Conv2d(first, first, 3, 1, 1)
        self.up4 = nn.ConvTranspose2d(first, second, 2, 2)
        self.norm4 = nn.GroupNorm(1, second)
        self.mix4 = nn.Conv2d(second, second, 3, 1, 1)
        self.up2 = nn.ConvTranspose2d(second, third, 2, 2)
        self.mix2 = nn.Conv2d(third, third, 3, 1, 1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, skip8: Tensor, skip4: Tensor, skip2: Tensor) -> Tensor:
        x = self.act(self.norm8(self.up8(x) + skip8))
        x = x + self.act(self.mix8(x))
        x = self.act(self.norm4(self.up4(x) + skip4))
        x = x + self.act(self.mix4(x))
        x = self.act(self.up2(x) + skip2)
        return cast(Tensor, self.act(self.mix2(x)))


class StarterMaskDecoder(MaskDecoder):
    """SAM's mask decoder with skips in its upscaling; four masks of 128 x 128 at once."""

    def __init__(self) -> None:
        super().__init__(
            transformer_dim=WIDTH,
            transformer=TwoWayTransformer(depth=2, embedding_dim=WIDTH, num_heads=4, mlp_dim=2 * WIDTH),
            iou_head_hidden_dim=WIDTH,
        )
        self.output_upscaling = _Upscaling()
        last = SKIP_CHANNELS[-1]
        for mlp in self.output_hypernetworks_mlps:
            mlp.layers[-1] = nn.Linear(mlp.layers[-1].in_features, last)

    def decode(self, features: Features, pe: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """Decode one prompt for each row of the batch.

        Args:
            features: of the encoder, already one row for each prompt.
            pe: (1, 96, 16, 16) positional encoding of the picture.
            sparse: (B, N, 96) prompt tokens.
            dense: (B, 96, 16, 16) dense prompt.

        Returns:
            Mask logits (B, 4, 128, 128), the first for unambiguous prompts, and predicted IoU (B, 4).
        """
        queries = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([queries.expand(len(sparse), -1, -1), sparse], dim=1)
        source = features["embedding"] + dense
        found, source = self.transformer(source, pe.expand(len(sparse), -1, -1, -1), tokens)
        source = source.transpose(1, 2).reshape(features["embedding"].shape)
        pixels = self.output_upscaling(source, features["skip8"], features["skip4"], features["skip2"])
        weights = torch.stack([mlp(found[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        masks = torch.einsum("bmc,bchw->bmhw", weights, pixels)
        return masks, self.iou_prediction_head(found[:, 0])


class StarterSam(nn.Module):
    """The small SAM whose weights ship with Tator; for trying out, never a claim about photographs."""

    def __init__(self) -> None:
        super().__init__()
        self.image_encoder = StarterEncoder()
        self.prompt_encoder = PromptEncoder(
            embed_dim=WIDTH,
            image_embedding_size=(EMBEDDING_SIZE, EMBEDDING_SIZE),
            input_image_size=(IMAGE_SIZE, IMAGE_SIZE),
            mask_in_chans=16,
        )
        self.prompt_encoder.pe_layer = PositionEmbeddingRandom(WIDTH // 2, scale=1.5)
        self.mask_decoder = StarterMaskDecoder()

    def encode(self, images: Tensor) -> Features:
        """RGB pictures (B, 3, 256, 256) in 0..255, zero-padded at right and bottom → features."""
        return cast(Features, self.image_encoder(images / 127.5 - 1))

    def decode(
        self, features: Features, points: Tensor | None, labels: Tensor | None, boxes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Decode one prompt for each row of ``features``.

        Args:
            features: of :meth:`encode`, one row for each prompt.
            points: (B, N, 2) x and y in the 256-pixel frame, or None.
            labels: (B, N) 1 positive, 0 negative, -1 padding.
            boxes: (B, 4) xyxy in the 256-pixel frame, or None.

        Returns:
            Mask logits (B, 4, 128, 128) and predicted IoU (B, 4).
        """
        pair = None if points is None or labels is None else (points, labels)
        drawn = prompt_map(points, labels, boxes)
        sparse, dense = self.prompt_encoder(points=pair, boxes=boxes, masks=drawn)
        return self.mask_decoder.decode(features, self.prompt_encoder.get_dense_pe(), sparse, dense)


def prompt_map(points: Tensor | None, labels: Tensor | None, boxes: Tensor | None) -> Tensor:
    """Draw prompts as SAM's mask input.

    Returns:
        (B, 1, 64, 64): a Gaussian bump for each point (positive up, negative down), and the box's
        inside raised by a half, its edge soft over one cell.
    """
    some = points if points is not None else boxes
    if some is None:
        raise ValueError("a prompt needs points or a box")
    cell = IMAGE_SIZE / PROMPT_MAP_SIZE
    centers = (torch.arange(PROMPT_MAP_SIZE, device=some.device) + 0.5) * cell
    drawn = torch.zeros(len(some), PROMPT_MAP_SIZE, PROMPT_MAP_SIZE, device=some.device)
    if points is not None and labels is not None:
        sign = torch.where(labels == 1, 1.0, torch.where(labels == 0, -1.0, 0.0))
        along_x = torch.exp(-(((points[..., 0:1] + 0.5 - centers) / (1.5 * cell)) ** 2))
        along_y = torch.exp(-(((points[..., 1:2] + 0.5 - centers) / (1.5 * cell)) ** 2))
        drawn = drawn + torch.einsum("bn,bny,bnx->byx", sign, along_y, along_x)
    if boxes is not None:
        low, high = boxes[:, 0:2, None], boxes[:, 2:4, None]
        inside = torch.sigmoid((centers - low) / cell * 4) * torch.sigmoid((high - centers) / cell * 4)
        drawn = drawn + 0.5 * inside[:, 1, :, None] * inside[:, 0, None, :]
    return drawn[:, None]


def tie_cross_attention(model: StarterSam) -> None:
    """Let every cross-attention begin by looking where the prompt is.

    With independent random projections training sits at IoU 0 for thousands of steps; tied
    orthogonal queries and keys make equal positions attend to each other from the first one.
    """
    transformer = model.mask_decoder.transformer
    attentions = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    with torch.no_grad():
        for attention in attentions:
            nn.init.orthogonal_(attention.q_proj.weight, gain=1.5)
            attention.k_proj.weight.copy_(attention.q_proj.weight)
