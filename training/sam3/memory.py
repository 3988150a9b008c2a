"""How much memory a training will need, told before it starts.

Weights, gradients and AdamW's moments are counted. What the backward pass keeps of the forward pass is counted too: it
is done once without any numbers (on torch's meta device), at the size of the real one, and every tensor that it keeps
is added up.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor
from transformers import Sam3Model
from transformers.initialization import no_init_weights
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tator_sdk.errors import TatorError
from tator_sdk.sam3_request import Sam3Training
from training.sam3.adapter import PROJECTIONS
from training.sam3.batches import LONGEST_PHRASE
from training.sam3.forward import Asked, How, answer, see
from training.sam3.freezing import Parts, freeze, is_still

FLOAT = 4
HALF_SHARE = 0.6
"""Of what single precision keeps, in bf16: residuals and norms stay single."""
SPARE = 1.15
"""What comes and goes within a step, and what allocators lose in pieces."""
_COUNTED = "counted"


class TooLarge(TatorError):
    """A training does not fit; the message says what to change."""


@dataclass(frozen=True)
class Estimate:
    """Bytes that a training needs at once.

    Attributes:
        weights: of the whole model, with their half-precision copies where there are any.
        gradients: of those that learn.
        optimizer: their two moments.
        activations: kept for the backward pass.
        checkpointing: whether activations are computed again instead of kept.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    checkpointing: bool

    @property
    def total(self) -> int:
        """All together, with some to spare."""
        return round(SPARE * (self.weights + self.gradients + self.optimizer + self.activations))

    @property
    def sentence(self) -> str:
        """For a log."""
        parts = ("weights", "gradients", "optimizer", "activations")
        said = ", ".join(f"{name} {in_gb(getattr(self, name))}" for name in parts)
        return f"about {in_gb(self.total)} of memory ({said})"


def estimate(config: Any, request: Sam3Training, masks: bool, half: bool) -> Estimate:
    """What a training needs; with gradient checkpointing where the request leaves that open, if masks are learned.

    Args:
        config: of the detector, at the resolution that is trained.
        request: what is trained, and in which batches.
        masks: whether masks are learned.
        half: whether it computes in bf16.
    """
    parts = Parts.of(request, masks)
    with torch.device("meta"), no_init_weights():
        build: Any = Sam3Model
        model = build(copy.deepcopy(config))
    ALL_ATTENTION_FUNCTIONS.register(_COUNTED, _attention)
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = _COUNTED
    freeze(model, parts)
    whole = sum(one.numel() for one in model.parameters())
    learned = _adapter_size(model, request, parts) if request.method == "lora" else _learned(model)
    checkpointing = request.gradient_checkpointing == "on" or (request.gradient_checkpointing == "auto" and masks)
    kept = _kept(model, config, request, parts, checkpointing)
    return Estimate(
        weights=FLOAT * whole + (FLOAT // 2 * whole if half else 0),
        gradients=FLOAT * learned,
        optimizer=2 * FLOAT * learned,
        activations=round(kept * (HALF_SHARE if half else 1)),
        checkpointing=checkpointing,
    )


def fitting(config: Any, request: Sam3Training, masks: bool, half: bool, device: torch.device) -> Estimate:
    """The estimate of what will be done: with checkpointing where the request leaves it open and memory is short.

    Raises:
        TooLarge: it does not fit.
    """
    free = free_bytes(device)
    found = estimate(config, request, masks, half)
    if found.total > free and not found.checkpointing and request.gradient_checkpointing == "auto":
        found = estimate(config, request.model_copy(update={"gradient_checkpointing": "on"}), masks, half)
    check(found, request, free, str(device))
    return found


def check(found: Estimate, request: Sam3Training, free: int, device: str) -> None:
    """Refuse what does not fit, before anything is loaded.

    Raises:
        TooLarge: it says which settings need less.
    """
    if found.total <= free:
        return
    ways = [
        ("--gradient-checkpointing on", not found.checkpointing),
        ("--freeze-vision", not request.freeze_vision and request.method == "whole"),
        ("--method lora", request.method == "whole"),
        ("--batch 1", request.batch > 1),
        ("fewer --most-questions", request.most_questions > 2),
        ("a smaller --resolution", True),
    ]
    said = ", ".join(way for way, left in ways if left)
    raise TooLarge(
        f"This training needs {found.sentence}, and {device} has {in_gb(free)} free; use {said}, or another --device."
    )


def free_bytes(device: torch.device) -> int:
    """What a device, or this machine for the CPU, can still give."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return int(psutil.virtual_memory().available)


def in_gb(count: int) -> str:
    """For a person."""
    return f"{count / 2**30:.1f} GB" if count >= 2**30 / 10 else f"{count / 2**20:.0f} MB"


def _learned(model: Any) -> int:
    return sum(one.numel() for one in model.parameters() if one.requires_grad)


def _adapter_size(model: Any, request: Sam3Training, parts: Parts) -> int:
    levels = len(model.vision_encoder.neck.fpn_layers)
    return sum(
        request.rank * sum(one.weight.shape)
        for name, one in model.named_modules()
        if name.rpartition(".")[2] in PROJECTIONS and not is_still(f"{name}.weight", parts, levels)
    )


def _kept(model: Any, config: Any, request: Sam3Training, parts: Parts, checkpointing: bool) -> int:
    """Bytes that the backward pass of one batch keeps, in single precision."""
    with_all = _traced(model, config, request, parts, False)
    if not checkpointing:
        return with_all
    with_inputs = _traced(model, config, request, parts, True)
    layers = (config.detr_encoder_config.num_layers, config.detr_decoder_config.num_layers)
    return with_inputs + (with_all - with_inputs) // min(layers)  # the layer that is computed again


def _traced(model: Any, config: Any, request: Sam3Training, parts: Parts, checkpointing: bool) -> int:
    questions = request.batch * request.most_questions
    side, width = config.vision_config.image_size, config.detr_encoder_config.hidden_size
    how = How(parts.masks, request.many_weight > 0, checkpointing, still_vision=not parts.vision)
    meta = {"device": "meta"}
    boxes = torch.zeros(questions, 1, 4, **meta) if parts.exemplars else None
    asked = Asked(
        torch.zeros(request.batch, 3, side, side, **meta),
        torch.zeros(questions, LONGEST_PHRASE, dtype=torch.long, **meta),
        torch.ones(questions, LONGEST_PHRASE, dtype=torch.bool, **meta),
        torch.zeros(questions, dtype=torch.long, **meta),
        boxes,
    )
    features = torch.zeros(questions, LONGEST_PHRASE, width, requires_grad=True, **meta)
    kept: dict[int, Tensor] = {}

    def keep(one: Tensor) -> Tensor:
        if not isinstance(one, torch.nn.Parameter):
            kept[one.untyped_storage()._cdata] = one
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        answer(model, see(model, asked.pixel_values, how), features, asked, how)
    parameters = {one.untyped_storage()._cdata for one in model.parameters()}
    total = sum(one.untyped_storage().nbytes() for key, one in kept.items() if key not in parameters)
    text = config.text_config
    # by the count of what such a layer keeps of a token: norms, projections, attention, and the wide part twice
    per_token = FLOAT * text.num_hidden_layers * (10 * text.hidden_size + 2 * text.intermediate_size)
    return int(total + (questions * LONGEST_PHRASE * per_token if parts.text else 0))


class _Fused(torch.autograd.Function):
    """Attention that keeps what the fused kernels keep: inputs, output, and a number a row."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        out = torch.empty_like(query)
        rows = query.new_empty(query.shape[:-1])
        ctx.save_for_backward(query, key, value, out, rows, *([] if mask is None else [mask]))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise NotImplementedError


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    found: Any = _Fused.apply(query, key, value, attention_mask)
    return found.transpose(1, 2).contiguous(), None
