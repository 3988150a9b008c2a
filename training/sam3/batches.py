"""Samples → tensors, as the processor makes them in service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tator_sdk.geometry import Outline, Xyxy, painting_order
from training.sam3.forward import Asked
from training.sam3.losses import Targets
from training.sam3.phrases import Question
from training.samples import Sample

PADDING = -10
"""Label of an exemplar that is none, as the model has it."""
LONGEST_PHRASE = 32
"""Tokens; the published processor pads to it."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Questions about pictures, with what they should be answered."""

    asked: Asked
    targets: Targets

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""

        def moved(one: Any) -> Any:
            fields = vars(one).items()
            return type(one)(**{name: one.to(device) if isinstance(one, Tensor) else one for name, one in fields})

        return Batch(moved(self.asked), moved(self.targets))


@dataclass(frozen=True, eq=False)
class Encoder:
    """Makes a model's inputs.

    Attributes:
        processor: a :class:`transformers.Sam3Processor`.
        side: of the square that pictures are stretched to, pixels.
        mask_side: of the model's masks; 0 where none are learned.
    """

    processor: Any
    side: int
    mask_side: int = 0
    _tokenizing: Lock = field(default_factory=Lock, repr=False)

    def pictures(self, pixels: Sequence[NDArray[np.uint8]]) -> Tensor:
        """(P, 3, S, S) of (H, W, 3) uint8 RGB pictures."""
        square = {"height": self.side, "width": self.side}
        made: Tensor = self.processor.image_processor(
            images=list(pixels), size=square, input_data_format="channels_last", return_tensors="pt"
        ).pixel_values
        return made

    def phrases(self, phrases: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens (B, T) of phrases, and which of them count."""
        with self._tokenizing:  # it refuses two threads at once
            made = self.processor.tokenizer(
                list(phrases), padding="max_length", max_length=LONGEST_PHRASE, truncation=True, return_tensors="pt"
            )
        return made.input_ids, made.attention_mask

    def batch(self, pictures: Sequence[tuple[Sample, NDArray[np.uint8], Sequence[Question]]]) -> Batch:
        """Questions about pictures, with the pictures' pixels."""
        questions = [(row, sample, one) for row, (sample, _, several) in enumerate(pictures) for one in several]
        tokens, valid = self.phrases([one.phrase for _, _, one in questions])
        boxes, labels = _exemplars([(sample, one) for _, sample, one in questions])
        asked = Asked(
            self.pictures([pixels for _, pixels, _ in pictures]),
            tokens,
            valid,
            torch.tensor([row for row, _, _ in questions]),
            boxes,
            labels,
        )
        return Batch(asked, self._targets([(sample, one) for _, sample, one in questions]))

    def _targets(self, questions: Sequence[tuple[Sample, Question]]) -> Targets:
        found = [(row, sample, thing) for row, (sample, one) in enumerate(questions) for thing in one.objects]
        boxes = [centred(thing.box, sample.size_wh) for _, sample, thing in found]
        masks = outlined = None
        if self.mask_side:
            drawn = [
                np.zeros((self.mask_side,) * 2, np.float32)
                if thing.outline is None
                else rasterised(thing.outline, sample.size_wh, self.mask_side)
                for _, sample, thing in found
            ]
            masks = torch.from_numpy(np.stack(drawn)) if drawn else torch.zeros(0, self.mask_side, self.mask_side)
            outlined = torch.tensor([thing.outline is not None for _, _, thing in found], dtype=torch.bool)
        question = torch.tensor([row for row, _, _ in found], dtype=torch.long)
        return Targets(len(questions), torch.tensor(boxes).view(-1, 4), question, masks, outlined)


def centred(box: Xyxy, size_wh: tuple[int, int]) -> tuple[float, float, float, float]:
    """A box in pixels → cx, cy, w, h as shares of the picture."""
    x0, y0, x1, y1 = (value / side for value, side in zip(box, (*size_wh, *size_wh), strict=True))
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0


def rasterised(outline: Outline, size_wh: tuple[int, int], side: int) -> NDArray[np.float32]:
    """An outline on a picture stretched to a square: the share of each cell that it covers.

    Args:
        outline: in pixels.
        size_wh: of the picture.
        side: of the square, cells.

    Returns:
        (side, side), 0..1, in sixteenths.
    """
    fine = 4
    cells = np.zeros((fine * side,) * 2, np.uint8)
    scale = fine * side / np.array(size_wh, np.float64)
    for ring, filled in painting_order(outline):
        # OpenCV's pixel n spans n - 0.5 to n + 0.5 of its coordinates, ours n to n + 1; an eighth bit is enough
        points = np.round((ring * scale - 0.5) * 256).astype(np.int32)
        cv2.fillPoly(cells, [points], int(filled), shift=8)
    return np.asarray(cells.reshape(side, fine, side, fine).mean((1, 3)), np.float32)


def _exemplars(questions: Sequence[tuple[Sample, Question]]) -> tuple[Tensor | None, Tensor | None]:
    most = max((len(one.exemplars) + len(one.negatives) for _, one in questions), default=0)
    if not most:
        return None, None
    boxes, labels = torch.zeros(len(questions), most, 4), torch.full((len(questions), most), PADDING)
    for row, (sample, one) in enumerate(questions):
        for place, box in enumerate((*one.exemplars, *one.negatives)):
            boxes[row, place] = torch.tensor(centred(box, sample.size_wh))
            labels[row, place] = int(place < len(one.exemplars))
    return boxes, labels
