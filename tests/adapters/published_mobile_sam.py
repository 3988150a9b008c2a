"""MobileSAM's image encoder as published, under its published names, written down independently of timm.

TinyViT-5M (https://arxiv.org/abs/2207.10666) as MobileSAM's ``tiny_vit_sam.py`` arranges it. Only
names, shapes and arithmetic matter here: its state dict is the layout of ``mobile_sam.pt``.
"""

from __future__ import annotations

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS, DEPTHS, HEADS, WINDOWS = (64, 128, 160, 320), (2, 2, 6, 2), (2, 4, 5, 10), (7, 7, 14, 7)


class ConvNorm(nn.Module):
    """``c`` and ``bn``."""

    def __init__(self, inputs: int, outputs: int, size: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.c(x))
        return out


class PatchEmbed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, 32, 3, 2), nn.GELU(), ConvNorm(32, 64, 3, 2))


class Convolutions(nn.Module):
    """Three of them: an inverted bottleneck with a shortcut, or a downsampling without."""

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int, shortcut: bool) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.conv1 = ConvNorm(inputs, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, stride, groups=hidden)
        self.conv3 = ConvNorm(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return F.gelu(x + y) if self.shortcut else y


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        # The bias of two cells depends on how far apart they are; (dy, dx) counts row by row.
        y, x = (axis.flatten() for axis in torch.meshgrid(*[torch.arange(window)] * 2, indexing="ij"))
        self.distance = (y[:, None] - y).abs() * window + (x[:, None] - x).abs()

    def forward(self, x: Tensor) -> Tensor:
        count, cells, width = x.shape
        split = self.qkv(self.norm(x)).reshape(count, cells, self.heads, 3, self.head_width)
        q, k, v = split.permute(3, 0, 2, 1, 4)
        weight = q @ k.transpose(-2, -1) / self.head_width**0.5 + self.attention_biases[:, self.distance]
        out: Tensor = self.proj((weight.softmax(-1) @ v).transpose(1, 2).reshape(count, cells, width))
        return out


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = Attention(width, heads, window)
        self.mlp = Mlp(width)
        self.local_conv = ConvNorm(width, width, 3, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.local_conv(x + self.attended(x)).permute(0, 2, 3, 1)
        x = x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.mlp.norm(x))))
        return x.permute(0, 3, 1, 2)

    def attended(self, x: Tensor) -> Tensor:
        """One window after the other; those over the edge are filled up with zeros."""
        _, _, height, width = x.shape
        size = self.window
        padded = F.pad(x, (0, -width % size, 0, -height % size))
        out = torch.empty_like(padded)
        for top in range(0, padded.shape[2], size):
            for left in range(0, padded.shape[3], size):
                inside = (..., slice(top, top + size), slice(left, left + size))
                cells = padded[inside].flatten(2).transpose(1, 2)
                out[inside] = self.attn(cells).transpose(1, 2).unflatten(2, (size, size))
        return out[..., :height, :width]


class Layer(nn.Module):
    def __init__(self, index: int) -> None:
        super().__init__()
        width, depth = WIDTHS[index], DEPTHS[index]
        blocks: list[nn.Module] = [
            Block(width, HEADS[index], WINDOWS[index])
            if index
            else Convolutions(width, 4 * width, width, stride=1, shortcut=True)
            for _ in range(depth)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.last = index == 3
        if not self.last:
            after = WIDTHS[index + 1]
            self.downsample = Convolutions(width, after, after, 1 if after == 320 else 2, shortcut=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(x)
        return out if self.last else self.downsample(out)


class PublishedEncoder(nn.Module):
    def __init__(self, img_size: int) -> None:
        super().__init__()
        self.img_size = img_size
        self.patch_embed = PatchEmbed()
        self.layers = nn.Sequential(*[Layer(index) for index in range(4)])
        self.norm_head = nn.LayerNorm(320)
        self.head = nn.Linear(320, 1000)
        self.neck = nn.Sequential(
            nn.Conv2d(320, 256, 1, bias=False),
            LayerNorm2d(256),
            nn.Conv2d(256, 256, 3, padding=1, bias=False),
            LayerNorm2d(256),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.neck(self.layers(self.patch_embed.seq(x)))
        return out


def published_mobile_sam(img_size: int) -> Sam:
    """As ``build_sam_vit_t`` builds it, in evaluation mode."""
    return Sam(
        PublishedEncoder(img_size),
        PromptEncoder(256, (img_size // 16, img_size // 16), (img_size, img_size), 16),
        MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8),
            transformer_dim=256,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    ).eval()
