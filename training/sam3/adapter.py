"""A low-rank adapter (LoRA, https://arxiv.org/abs/2106.09685) in the model's attention, and how it is merged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor

from tator_sdk.sam3_request import Sam3Training
from training.sam3.freezing import Parts, is_still

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj")
_DOWN, _UP = ".lora_A.default.weight", ".lora_B.default.weight"


def add_adapter(model: Any, request: Sam3Training, parts: Parts) -> None:
    """Put an adapter into every attention that may learn; from then on it alone learns."""
    levels = len(model.vision_encoder.neck.fpn_layers)
    names = [
        name
        for name, _ in model.named_modules()
        if name.rpartition(".")[2] in PROJECTIONS and not is_still(f"{name}.weight", parts, levels)
    ]
    inject: Any = inject_adapter_in_model
    inject(
        LoraConfig(
            r=request.rank,
            lora_alpha=request.alpha,
            lora_dropout=request.dropout,
            target_modules="|".join(re.escape(name) for name in names),
        ),
        model,
    )


def merged(learned: Mapping[str, Tensor], scale: float, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What was learned as weights of the model itself.

    Args:
        learned: weights by name; those of an adapter in pairs.
        scale: of the adapter: its alpha by its rank.
        base: what adapters were put upon.
    """
    found = {}
    for name, one in learned.items():
        if name.endswith(_DOWN):
            continue
        if not name.endswith(_UP):
            found[name] = one
            continue
        plain = f"{name.removesuffix(_UP)}.weight"
        added = one.float() @ learned[name.removesuffix(_UP) + _DOWN].float() * scale
        found[plain] = (base[plain].to(added.device, torch.float32) + added).to(base[plain].dtype)
    return found
