"""Which weights learn, and how fast."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from tator_sdk.sam3_request import Sam3Training

BACKBONE = "vision_encoder.backbone."
NECK = "vision_encoder.neck.fpn_layers."
TEXT = ("text_encoder.", "text_projection.")
EXEMPLARS = "geometry_encoder."
MASKS = "mask_decoder."


@dataclass(frozen=True)
class Parts:
    """What a training touches.

    Attributes:
        masks: what makes masks learns; else the segmentation head and the levels of the pyramid that only it looks at
            stay bit for bit.
        exemplars: what reads exemplars learns.
        vision: the vision tower learns.
        text: the text encoder learns.
    """

    masks: bool
    exemplars: bool
    vision: bool
    text: bool

    @classmethod
    def of(cls, request: Sam3Training, masks: bool) -> Parts:
        """Those of a request."""
        return cls(masks, request.exemplars > 0, not request.freeze_vision, not request.freeze_text)


def is_still(name: str, parts: Parts, levels: int) -> bool:
    """Whether a weight stays as it is.

    Args:
        name: of the weight in a :class:`transformers.Sam3Model`.
        parts: what is touched.
        levels: of the pyramid. The last but one is the detector's, the finer ones serve masks alone, and the last one
            nothing.
    """
    # of no effect on any answer that is taught: without a gradient, several processes would wait for one
    if name.startswith(("text_encoder.text_projection.", "mask_decoder.semantic_projection.")):
        return True
    if name.startswith(NECK):
        level = int(name[len(NECK) :].partition(".")[0])
        return level == levels - 1 or (level < levels - 2 and not parts.masks)
    if name.startswith(MASKS):
        return not parts.masks
    if name.startswith(EXEMPLARS):
        return not parts.exemplars
    if name.startswith(BACKBONE):
        return not parts.vision
    return name.startswith("text_encoder.") and not parts.text


def freeze(model: Any, parts: Parts) -> None:
    """Let only those weights learn that should."""
    levels = len(model.vision_encoder.neck.fpn_layers)
    for name, one in model.named_parameters():
        one.requires_grad_(not is_still(name, parts, levels))


def set_training(model: Any, parts: Parts) -> None:
    """Dropout where something learns; whole encoders that stay answer as in service."""
    model.train()
    for module, learns in (
        (model.vision_encoder.backbone, parts.vision),
        (model.text_encoder, parts.text),
        (model.geometry_encoder, parts.exemplars),
        (model.mask_decoder, parts.masks),
    ):
        if not learns:
            module.eval()


def groups(named: Iterable[tuple[str, nn.Parameter]], request: Sam3Training, blocks: int) -> list[dict[str, Any]]:
    """Groups for AdamW, of equal rate and decay, in the order of their first weight.

    Args:
        named: weights with their names in a :class:`transformers.Sam3Model`; those that stay are left out.
        request: rates and decay.
        blocks: of the vision tower.
    """
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, one in named:
        if one.requires_grad:
            # vectors are biases, norms and scales
            decay = request.weight_decay if one.ndim > 1 else 0.0
            found.setdefault((rate_of(name, request, blocks), decay), []).append(one)
    return [{"params": some, "lr": rate, "weight_decay": decay} for (rate, decay), some in found.items()]


def rate_of(name: str, request: Sam3Training, blocks: int) -> float:
    """The rate of a weight; see :class:`Sam3Training`.

    The vision tower's last block has its whole rate, each block before it ``layer_decay`` times that of the next one,
    patches and the first norm that of a block before the first; positions have the whole rate, as in the recipe.
    """
    if name.startswith(TEXT):
        return request.text_rate
    if not name.startswith("vision_encoder."):
        return request.learning_rate
    if not name.startswith(BACKBONE) or "position_embeddings" in name:
        return request.vision_rate
    block = int(name.split(".layers.")[1].partition(".")[0]) if ".layers." in name else -1
    return request.vision_rate * float(request.layer_decay ** (blocks - 1 - block))
