"""Embeddings, heads and small fakes that several tests of learning share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tator_ml.engine.crops import CropRecipe
from tator_ml.engine.head import Head
from tator_ml.engine.messages import EmbedAsk, Embedded
from tator_sdk.annotations import LabelledBox

DIM = 16
CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="boxes" toName="image"><Label value="Car"/><Label value="Van"/><Label value="Bus"/>
<Label value="Tweak" model_assist="tweak"/></RectangleLabels></View>"""


def image_name(number: int) -> str:
    """Content hash of picture ``number``."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def blobs(
    classes: int, count: int, noise: float = 0.3, seed: int = 0, dim: int = DIM, shares: Sequence[float] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(N, dim) embeddings of norm 1 around one direction a class, every class at least thrice."""
    rng = np.random.default_rng([seed, classes])
    centers = unit(np.random.default_rng(classes).normal(size=(classes, dim)))
    labels = np.concatenate([np.repeat(np.arange(classes), 3), rng.choice(classes, count - 3 * classes, p=shares)])
    return unit(centers[labels] + noise * rng.normal(size=(count, dim))), labels.astype(np.int64)


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(shares / shares.sum(1, keepdims=True), np.float64)


def head_of(classes: tuple[str, ...] = ("Car", "Van", "Bus"), seed: int = 0, **values: Any) -> Head:
    """A head whose class i is the i-th axis, more or less."""
    weight = 8 * np.eye(len(classes), DIM) + 0.01 * np.random.default_rng(seed).normal(size=(len(classes), DIM))
    settings: dict[str, Any] = {
        "temperature": 1.0, "threshold": 0.6, "margin": 0.1, "encoder": "axis-1", "recipe": CropRecipe(),
        "version": "unregistered", "encoder_name": "axis",
    }  # fmt: skip
    bias = np.zeros(len(classes), np.float32)
    return Head(classes, weight.astype(np.float32), bias, **(settings | values))


def labelled(region: str, label: str, x: float = 10, size_wh: tuple[int, int] = (100, 80)) -> LabelledBox:
    return LabelledBox(region, "image", label, (x, 10.0, x + 20, 30.0), size_wh)


def rectangle(region: str, label: str, x: float = 10, **more: Any) -> dict[str, Any]:
    """A region as Label Studio keeps it, 20 percent wide and high, on a picture of 640 x 480."""
    value = {"x": x, "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": [label]}
    return {
        "id": region, "from_name": "boxes", "to_name": "image", "type": "rectanglelabels", "value": value,
        "original_width": 640, "original_height": 480, **more,
    }  # fmt: skip


class AxisComputes:
    """Embeds a box as one axis: that of its left edge in steps of 64 pixels, unless ``axis`` is set."""

    def __init__(self, axis: int | None = None) -> None:
        self.asks: list[EmbedAsk] = []
        self.axis = axis
        self.broken: set[str] = set()

    def embed(self, ask: EmbedAsk) -> Embedded:
        from tator_ml.images.decode import ImageError

        self.asks.append(ask)
        if self.broken & {item.image for item in ask.items}:
            raise ImageError("The picture is damaged.")
        lefts = [xyxy[0] for item in ask.items for xyxy in item.xyxy]
        rows = [int(left // 64) % DIM if self.axis is None else self.axis for left in lefts]
        return Embedded("axis-1", np.eye(DIM, dtype=np.float16)[rows])

    def encoder_version(self, name: str) -> str:
        return f"{name}-1"
