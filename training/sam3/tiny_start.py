"""Where a tiny SAM 3 begins, so that it learns from nothing within minutes.

A detector of this kind takes days to find out by itself where to look. Its plain random weights are replaced by ones
that know that much and nothing about pictures or words: queries stand on a grid; each head of their attention looks at
one edge of the query's box, or at its inside, by the bias that the decoder makes from boxes; positions are waves; words
are far apart.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

BOX_SIDE = 0.27
"""Of a query's first box, as a share of the picture."""
_POSITION_SCALE = 0.5
_WORD_SCALE = 1.0
_ADDED = ("o_proj", "fc2")
"""What is added to what was there before: little, so that what patches show reaches the end."""
_ADDED_SCALE = 0.2


@torch.no_grad()
def prepare(detector: Any) -> None:
    """Set the weights of a :class:`transformers.Sam3Model` that has learnt nothing."""
    for name, module in detector.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and not name.startswith(("text_encoder.", "mask_decoder.")):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                module.bias.zero_()
            if name.startswith(("vision_encoder.", "detr_encoder.")) and name.endswith(_ADDED):
                module.weight.mul_(_ADDED_SCALE)
    for level in detector.vision_encoder.neck.fpn_layers:
        nn.init.dirac_(level.proj2.weight)
    nn.init.normal_(detector.text_encoder.text_model.embeddings.token_embedding.weight, std=_WORD_SCALE)
    _place_patches(detector.vision_encoder.backbone.embeddings)
    _place_queries(detector.detr_decoder)
    _look_at_edges(detector.detr_decoder)


def _place_patches(embeddings: Any) -> None:
    """Patches of about unit size, and waves of both directions that tell them apart."""
    patches = embeddings.patch_embeddings.projection.weight
    nn.init.normal_(patches, std=1.5 / math.sqrt(patches[0].numel()))
    _, count, width = embeddings.position_embeddings.shape
    side, waves = math.isqrt(count), width // 4
    middles = (torch.arange(side) + 0.5) / side
    angles = middles[:, None] * math.pi * 2.0 ** (torch.arange(waves) * 4 / waves - 1)
    line = torch.cat([angles.sin(), angles.cos()], 1)
    both = torch.cat([line[:, None].expand(side, side, -1), line[None].expand(side, side, -1)], 2)
    embeddings.position_embeddings[..., : both.shape[-1]] = _POSITION_SCALE * both.reshape(1, count, -1)


def _place_queries(decoder: Any) -> None:
    """Boxes on the largest square grid; what is over stays at random."""
    side = math.isqrt(decoder.query_embed.num_embeddings)
    middles = (torch.arange(side) + 0.5) / side
    rows, columns = torch.meshgrid(middles, middles, indexing="ij")
    sides = torch.full((side * side,), BOX_SIDE)
    boxes = torch.stack([columns.flatten(), rows.flatten(), sides, sides], 1)
    decoder.reference_points.weight[: side * side] = torch.logit(boxes)
    nn.init.normal_(decoder.query_embed.weight, std=0.5)
    decoder.box_head.layer3.weight.mul_(0.01)  # answers begin as the boxes are


def _look_at_edges(decoder: Any) -> None:
    """The attention's heads: left, right, top, bottom edge, and inside."""
    # of a place on an axis: how far before the near edge, after it, before the far edge, after it
    distances = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
    inside, near, far = (-4.0, 0.0, 0.0, -4.0), (-4.0, -3.0, 0.0, -2.0), (-2.0, 0.0, -3.0, -4.0)
    per_axis = (
        (decoder.box_rpb_embed_x, (near, far, inside, inside, inside)),
        (decoder.box_rpb_embed_y, (inside, inside, near, far, inside)),
    )
    for bias, looks in per_axis:
        bias.layer1.weight[:4] = distances
        bias.layer1.bias[:4] = 0.0
        bias.layer2.weight.mul_(0.05)
        bias.layer2.bias.zero_()
        for head, weights in enumerate(bias.layer2.weight):
            _set(weights, looks[head % len(looks)])


def _set(weights: Tensor, look: tuple[float, ...]) -> None:
    weights[: len(look)] = torch.tensor(look)
