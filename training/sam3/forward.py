"""SAM 3 as it is trained: every decoder layer answers, several phrases share a picture, and masks only where asked.

What :class:`transformers.Sam3Model` computes in one go for one phrase a picture is done here part by part with the
same sub-modules, so that the weights are the published ones; its last layer's answer is equal to the model's own.
The one-to-many queries follow DAC-DETR (https://openreview.net/forum?id=8JMexYVcXB) as the published recipe does: a
second set of the same queries, which does not look at the others.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers.models.sam3.modeling_sam3 import inverse_sigmoid


@dataclass(frozen=True, eq=False)
class Asked:
    """Questions about pictures.

    Attributes:
        pixel_values: (P, 3, S, S) pictures as the processor makes them.
        input_ids: (B, T) tokens of the phrases.
        attention_mask: (B, T) which of them count.
        picture: (B,) int64: which picture each phrase is asked of.
        boxes: (B, E, 4) exemplars, cx, cy, w, h as shares of the picture; None for none.
        box_labels: (B, E) 1 looks alike, 0 does not, -10 is padding.
    """

    pixel_values: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    picture: Tensor
    boxes: Tensor | None = None
    box_labels: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Layers:
    """What each of the L decoder layers answers to B questions with Q queries.

    Attributes:
        logits: (L, B, Q) of the scores.
        boxes: (L, B, Q, 4) cx, cy, w, h as shares of the picture.
        presence: (L, B) logits of the phrase being on the picture at all; None for queries that do not learn it.
        masks: (B, Q, H, W) logits of the last layer; None where none were asked for.
    """

    logits: Tensor
    boxes: Tensor
    presence: Tensor | None
    masks: Tensor | None = None

    @property
    def scores(self) -> Tensor:
        """(B, Q) probabilities of the last layer, as in service: the query's times the phrase's."""
        present = 1.0 if self.presence is None else self.presence[-1].sigmoid()[:, None]
        return self.logits[-1].sigmoid() * present


@dataclass(frozen=True)
class How:
    """How a forward pass is done.

    Attributes:
        masks: answer with masks.
        many: with a second set of queries, which several may find one object.
        checkpointing: compute layers again in the backward pass rather than keep what they need.
        still_vision: no gradient goes into the vision tower.
        still_text: nor into the text encoder.
    """

    masks: bool = False
    many: bool = False
    checkpointing: bool = False
    still_vision: bool = False
    still_text: bool = False


@dataclass(frozen=True, eq=False)
class Seen:
    """P pictures as the vision tower sees them.

    Attributes:
        levels: (P, D, H, W) of the pyramid, coarsest last; only that one where no masks are asked for.
        positions: of their cells, likewise.
    """

    levels: tuple[Tensor, ...]
    positions: tuple[Tensor, ...]


def forward(model: Any, asked: Asked, how: How = How()) -> tuple[Layers, Layers | None]:
    """Answer questions.

    Args:
        model: a :class:`transformers.Sam3Model`.
        asked: the questions.
        how: see there.

    Returns:
        The answers, and those of the second set of queries where there is one.
    """
    features = read(model, asked.input_ids, asked.attention_mask, how)
    return answer(model, see(model, asked.pixel_values, how), features, asked, how)


def see(model: Any, pixel_values: Tensor, how: How = How()) -> Seen:
    """What all questions about (P, 3, S, S) pictures share."""
    vision = model.vision_encoder
    neck = vision.neck
    patch = vision.config.backbone_config.patch_size
    grid = pixel_values.shape[-2] // patch, pixel_values.shape[-1] // patch
    with torch.no_grad() if how.still_vision else nullcontext():
        hidden = vision.backbone.layer_norm(vision.backbone.embeddings(pixel_values).unflatten(1, grid))
        for layer in vision.backbone.layers:
            hidden = _run(how, layer, hidden)
    spatial = hidden.permute(0, 3, 1, 2)
    detector_level = len(neck.fpn_layers) - 2  # the last one is of no use here, as in the model's own forward
    used = range(detector_level + 1) if how.masks else (detector_level,)
    levels = tuple(neck.fpn_layers[one](spatial) for one in used)
    return Seen(levels, tuple(neck.position_encoding(one.shape, one.device, one.dtype) for one in levels))


def read(model: Any, input_ids: Tensor, attention_mask: Tensor, how: How = How()) -> Tensor:
    """Features (B, T, D) of phrases; they depend on no picture."""
    with torch.no_grad() if how.still_text else nullcontext():
        text = model.text_encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    found: Tensor = model.text_projection(text)
    return found


def answer(model: Any, seen: Seen, features: Tensor, asked: Asked, how: How = How()) -> tuple[Layers, Layers | None]:
    """As :func:`forward`, about pictures that were seen, in phrases that were read; pixels and tokens do not count."""
    level, position = seen.levels[-1][asked.picture], seen.positions[-1][asked.picture]
    prompt, valid = _prompt(model, features, asked, level, position)
    encoded, flat_position = _encode(model.detr_encoder, level, position, prompt, valid, how)
    hidden, references, presence = _decode(
        model.detr_decoder, encoded, flat_position, prompt, valid, (level.shape[-2], level.shape[-1]), how
    )
    boxes = (inverse_sigmoid(references) + model.detr_decoder.box_head(hidden)).sigmoid()
    logits = model.dot_product_scoring(hidden, prompt, valid).squeeze(-1)
    count = model.detr_decoder.query_embed.num_embeddings
    masks = None
    if how.masks:
        fine = [one[asked.picture] for one in seen.levels[:-1]]
        masks = _masks(model.mask_decoder, hidden[-1][:, :count], [*fine, level], encoded, prompt, valid, how)
    one = Layers(logits[:, :, :count], boxes[:, :, :count], presence, masks)
    return one, Layers(logits[:, :, count:], boxes[:, :, count:], None) if how.many else None


def _prompt(model: Any, features: Tensor, asked: Asked, level: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """Features of phrases and exemplars, (B, T, D), and which of them count."""
    valid = asked.attention_mask.bool()
    if asked.boxes is None or not asked.boxes.numel():
        return features, valid
    labels = torch.ones_like(asked.boxes[..., 0]).long() if asked.box_labels is None else asked.box_labels
    given = labels != -10
    shown = model.geometry_encoder(
        box_embeddings=asked.boxes.to(features.dtype),
        box_mask=given,
        box_labels=labels.clamp(min=0),
        img_feats=(level,),
        img_pos_embeds=(position,),
    )
    # a question without exemplars must not see the token that sums them up
    counts = shown.attention_mask.bool() & given.any(1, keepdim=True)
    return torch.cat([features, shown.last_hidden_state], 1), torch.cat([valid, counts], 1)


def _encode(
    encoder: Any, level: Tensor, position: Tensor, prompt: Tensor, valid: Tensor, how: How
) -> tuple[Tensor, Tensor]:
    hidden, flat_position = level.flatten(2).transpose(1, 2), position.flatten(2).transpose(1, 2)
    mask = _attends(encoder.config, hidden, prompt, valid)
    for layer in encoder.layers:
        hidden = _run(how, layer, hidden, prompt, flat_position, mask)
    return hidden, flat_position


def _decode(
    decoder: Any, vision: Tensor, position: Tensor, prompt: Tensor, valid: Tensor, grid: tuple[int, int], how: How
) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states (L, B, Q, D), reference boxes (L, B, Q, 4) and presence (L, B) of all layers."""
    batch, sets = len(vision), 2 if how.many else 1
    queries = decoder.query_embed.weight.repeat(sets, 1).expand(batch, -1, -1)
    references = decoder.reference_points.weight.repeat(sets, 1).expand(batch, -1, -1).sigmoid()
    hidden = torch.cat([decoder.presence_token.weight.expand(batch, -1, -1), queries], 1)
    text_mask = _attends(decoder.config, hidden, prompt, valid)
    states, seen, present = [], [], []
    for layer in decoder.layers:
        seen.append(references)
        sine = decoder.position_encoding.encode_boxes(references)
        query_position = functional.pad(decoder.ref_point_head(sine), (0, 0, 1, 0))
        hidden = _run(
            how, _layer, decoder, layer, hidden, query_position, references, prompt, vision, position, text_mask, grid
        )
        normed = decoder.output_layer_norm(hidden[:, 1:])
        states.append(normed)
        references = (decoder.box_head(normed) + inverse_sigmoid(references)).sigmoid().detach()
        logit = decoder.presence_head(decoder.presence_layer_norm(hidden[:, :1])).view(batch)
        limit = decoder.clamp_presence_logit_max_val
        present.append(logit.clamp(-limit, limit))
    return torch.stack(states), torch.stack(seen), torch.stack(present)


def _layer(
    decoder: Any, layer: Any, hidden: Tensor, query_position: Tensor, references: Tensor, prompt: Tensor,
    vision: Tensor, position: Tensor, text_mask: Any, grid: tuple[int, int],
) -> Tensor:  # fmt: skip
    """A decoder layer; of two sets of queries only the first looks at its own kind."""
    first = 1 + decoder.query_embed.num_embeddings
    own, placed = hidden[:, :first], (hidden + query_position)[:, :first]
    attended, _ = layer.self_attn(query=placed, key=placed, value=own, attention_mask=None)
    own = own + layer.self_attn_dropout(attended)
    hidden = layer.self_attn_layer_norm(torch.cat([own, hidden[:, first:]], 1))
    attended, _ = layer.text_cross_attn(
        query=hidden + query_position, key=prompt, value=prompt, attention_mask=text_mask
    )
    hidden = layer.text_cross_attn_layer_norm(hidden + layer.text_cross_attn_dropout(attended))
    near = functional.pad(decoder._get_rpb_matrix(references, grid), (0, 0, 1, 0))
    attended, _ = layer.vision_cross_attn(
        query=hidden + query_position, key=vision + position, value=vision, attention_mask=near
    )
    hidden = layer.vision_cross_attn_layer_norm(hidden + layer.vision_cross_attn_dropout(attended))
    found: Tensor = layer.mlp_layer_norm(hidden + layer.mlp_dropout(layer.mlp(hidden)))
    return found


def _masks(
    decoder: Any, queries: Tensor, levels: list[Tensor], encoded: Tensor, prompt: Tensor, valid: Tensor, how: How
) -> Tensor:
    def run(queries: Tensor, encoded: Tensor, prompt: Tensor, *levels: Tensor) -> Tensor:
        mask = _attends(decoder.config, encoded, prompt, valid)
        normed = decoder.prompt_cross_attn_norm(encoded)
        attended, _ = decoder.prompt_cross_attn(query=normed, key=prompt, value=prompt, attention_mask=mask)
        seen = encoded + decoder.prompt_cross_attn_dropout(attended)
        pixels = decoder.instance_projection(decoder._embed_pixels(list(levels), seen))
        return torch.einsum("bqc,bchw->bqhw", decoder.mask_embedder(queries), pixels)

    found: Tensor = _run(how, run, queries, encoded, prompt, *levels)
    return found


def _attends(config: Any, queries: Tensor, prompt: Tensor, valid: Tensor) -> Tensor:
    """(B, 1, queries, T) what may be looked at of a prompt, as the model's kind of attention takes it."""
    seen = valid[:, None, None].expand(-1, 1, queries.shape[1], -1)
    if config._attn_implementation != "eager":
        return seen
    return torch.zeros_like(seen, dtype=queries.dtype).masked_fill(~seen, torch.finfo(queries.dtype).min)


def _run(how: How, part: Callable[..., Any], *inputs: Any) -> Any:
    """Run a part, keeping of it nothing for the backward pass but its inputs where memory is short."""
    if how.checkpointing and torch.is_grad_enabled():
        return checkpoint(part, *inputs, use_reentrant=False)
    return part(*inputs)
