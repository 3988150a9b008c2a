"""Which of several masks is taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tator_ml.engine.messages import Prompt
from tator_ml.engine.refine import segment_points
from tator_ml.engine.segmenters.base import Decoded, Embedding, Prompts

SIDES = (10, 30, 90)
EMBEDDING = Embedding({}, (100, 100), "three-1")
POINT = Prompt(((5.0, 5.0),), (True,))


class ThreeSquares:
    """Always answers squares of 10, 30 and 90 pixels, trusted as told."""

    version = "three-1"

    def __init__(self, iou: list[float]) -> None:
        self.iou = iou

    def encode(self, image: object) -> Embedding:
        return EMBEDDING

    def decode(self, embedding: Embedding, prompts: Prompts, multimask: bool) -> Decoded:
        assert multimask
        low = torch.full((1, 3, 100, 100), -9.0)
        for index, side in enumerate(SIDES):
            low[0, index, :side, :side] = 9
        return Decoded(low, torch.tensor([self.iou]))

    def full_size(self, embedding: Embedding, low_res: torch.Tensor) -> torch.Tensor:
        return low_res


@pytest.mark.parametrize(
    ("iou", "usual_area", "side"),
    [
        ([0.90, 0.91, 0.92], None, 90),
        ([0.90, 0.91, 0.92], 0.0, 90),
        ([0.90, 0.91, 0.92], 0.01, 10),
        ([0.90, 0.91, 0.92], 0.001, 10),
        ([0.90, 0.91, 0.92], 0.02, 10),
        ([0.90, 0.91, 0.92], 0.05, 30),
        ([0.90, 0.91, 0.92], 0.26, 30),
        ([0.90, 0.91, 0.92], 0.28, 90),
        ([0.80, 0.91, 0.92], 0.01, 30),
        ([0.80, 0.81, 0.92], 0.01, 90),
        ([1.30, 1.10, 0.50], 0.09, 30),
    ],
)
def test_of_masks_trusted_alike_the_usual_size_is_taken(iou: list[float], usual_area: float | None, side: int) -> None:
    found = segment_points(ThreeSquares(iou), EMBEDDING, POINT, usual_area)
    assert found is not None and found.xyxy == (0, 0, side, side)
    assert found.quality == pytest.approx(np.clip(iou[SIDES.index(side)], 0, 1))
