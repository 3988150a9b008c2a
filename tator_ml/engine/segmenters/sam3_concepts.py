"""Phrases and exemplars for SAM 3 (https://arxiv.org/abs/2511.16719) through ``transformers``.

Answers are those of ``Sam3Model`` with ``Sam3Processor`` and its ``post_process_instance_segmentation``.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tator_ml.engine.concepts import Concept
from tator_ml.engine.segmenters.base import Candidates, Embedding
from tator_ml.sam3.phrases import Phrases

EXEMPLARS_ALONE = "visual"
"""What the model is told where boxes alone say what is meant."""
TOGETHER = 4  # a batch takes half a gigabyte a concept at 1008 px, and some 100 ms on a large GPU
LEVELS = 3
"""Of the detector's neck that are used, fine to coarse; it has a fourth, which the model drops."""


class Sam3Concepts:
    """A ``Sam3Model`` that is given the backbone's output; threads may share it.

    Attributes:
        together: see :class:`base.ConceptFinder`.
    """

    def __init__(self, detector: Any, processor: Any) -> None:
        """Prepare.

        Args:
            detector: ``Sam3Model`` in evaluation mode.
            processor: its ``Sam3Processor``.
        """
        self._detector = detector
        self._boxes_alone = _without_masks(detector)
        self._phrases = Phrases(detector, processor.tokenizer)
        self.together = 1 if detector.device.type == "cpu" else TOGETHER

    @torch.no_grad()
    def look(self, embedding: Embedding, masks: bool) -> Embedding:
        """The neck's levels ``level_0``, ``level_1`` and ``level_2`` with the ``positions`` of the last.

        Where no masks are wanted, only the last level is made.
        """
        hidden = embedding.tensors["hidden"].to(self._detector.device).permute(0, 3, 1, 2)
        neck = self._detector.vision_encoder.neck
        wanted = range(0 if masks else LEVELS - 1, LEVELS)
        levels = {f"level_{level}": neck.fpn_layers[level](hidden) for level in wanted}
        last = levels[f"level_{LEVELS - 1}"]
        positions = neck.position_encoding(last.shape, last.device, last.dtype)
        return Embedding({**levels, "positions": positions}, embedding.size_wh, embedding.model)

    @torch.no_grad()
    def find(self, seen: Embedding, concepts: Sequence[Concept], masks: bool) -> list[Candidates]:
        """Concepts → candidates for each: the model's queries, whatever their scores.

        Phrases go through the model in one batch. Those with boxes go one by one: padded to as many boxes as others
        have, they would not be answered exactly as alone.
        """
        plain = [index for index, one in enumerate(concepts) if not (one.exemplars or one.negatives)]
        found = dict(zip(plain, self._decoded(seen, [concepts[index] for index in plain], masks), strict=True))
        for index, concept in enumerate(concepts):
            if index not in found:
                found[index] = self._decoded(seen, [concept], masks)[0]
        return [found[index] for index in range(len(concepts))]

    def full_size(self, masks: Tensor, size_wh: tuple[int, int]) -> Tensor:
        """Probabilities (K, h, w) → (K, H, W), as ``post_process_instance_segmentation``."""
        width, height = size_wh
        return F.interpolate(masks[None], (height, width), mode="bilinear", align_corners=False)[0]

    def _decoded(self, seen: Embedding, concepts: Sequence[Concept], masks: bool) -> list[Candidates]:
        if not concepts:
            return []
        texts, there = self._phrases.features([one.phrase or EXEMPLARS_ALONE for one in concepts])
        model = self._detector if masks else self._boxes_alone
        out = model(
            vision_embeds=self._vision(seen, len(concepts)),
            text_embeds=SimpleNamespace(pooler_output=texts),
            attention_mask=there,
            **self._boxes(concepts, seen.size_wh),
        )
        scores = out.pred_logits.sigmoid() * out.presence_logits.sigmoid()
        width, height = seen.size_wh
        boxes = out.pred_boxes * torch.tensor([width, height, width, height], device=out.pred_boxes.device)
        probabilities = out.pred_masks.sigmoid() if masks else [None] * len(concepts)
        return [Candidates(*row) for row in zip(scores, boxes, probabilities, strict=True)]

    def _vision(self, seen: Embedding, count: int) -> Any:
        """The same picture for each concept, as ``Sam3VisionEncoderOutput``; its last level is never looked at."""
        tensors = {
            name: tensor.to(self._detector.device).expand(count, -1, -1, -1) for name, tensor in seen.tensors.items()
        }
        positions = tensors.pop("positions")
        levels = [tensors[name] for name in sorted(tensors)]
        return SimpleNamespace(
            fpn_hidden_states=(*levels, None),
            fpn_position_encoding=(positions, None),
            hidden_states=None,
            attentions=None,
        )

    def _boxes(self, concepts: Sequence[Concept], size_wh: tuple[int, int]) -> dict[str, Tensor]:
        """Boxes of a single concept as the processor gives them: centre and size as shares of the picture."""
        one = concepts[0]
        drawn = [*one.exemplars, *one.negatives]
        if not drawn:
            return {}
        width, height = size_wh
        shares = torch.tensor(drawn, dtype=torch.float32) / torch.tensor([width, height, width, height])
        x0, y0, x1, y1 = shares.unbind(-1)
        boxes = torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], dim=-1)
        labels = torch.tensor([1] * len(one.exemplars) + [0] * len(one.negatives))
        device = self._detector.device
        return {"input_boxes": boxes[None].to(device), "input_boxes_labels": labels[None].to(device)}


class _NoMasks(nn.Module):
    """In place of the mask decoder, which takes two fifths of a pass."""

    def forward(self, **_: Any) -> Any:
        return SimpleNamespace(pred_masks=None, semantic_seg=None, attentions=None)


def _without_masks(detector: Any) -> Any:
    """The same model, over the same weights, that gives no masks."""
    twin = copy.copy(detector)
    twin._modules = {**detector._modules, "mask_decoder": _NoMasks()}
    return twin
