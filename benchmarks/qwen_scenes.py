"""Scenes simple enough for a model of a million parameters: one large shape on a quiet ground.

Two kinds: ``filled`` shapes on a light ground, each class in a hue of its own, and ``outlined`` ones on a dark ground,
where the same classes have other hues. Positions, sizes, hues, ground and noise are drawn anew for each scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tator_sdk.geometry import Xyxy
from training.samples import Labelled, Sample

Kind = Literal["filled", "outlined"]
CLASSES = ("circle", "square", "triangle", "cross")
HUES = ((220, 60, 50), (60, 110, 220), (70, 180, 80), (230, 190, 60))
SIDE = 128  # pixels


@dataclass(frozen=True)
class Scene:
    """A picture (PIL, ``SIDE`` wide and high) and the object on it: its class, and its box in pixels."""

    picture: Image.Image
    label: str
    box: Xyxy


def scene(seed: int, kind: Kind) -> Scene:
    """The scene of a seed; the same for ever."""
    rng = np.random.default_rng([seed, ("filled", "outlined").index(kind)])
    level = rng.uniform(130, 220) if kind == "filled" else rng.uniform(10, 70)
    ground = level + rng.normal(0, 6, 3) + rng.normal(0, 8, (SIDE, SIDE, 1))
    picture = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    width, height = (int(side) for side in rng.integers(SIDE // 4, SIDE // 2, 2))
    left, top = int(rng.integers(0, SIDE - width)), int(rng.integers(0, SIDE - height))
    number = int(rng.integers(len(CLASSES)))
    hue = HUES[number if kind == "filled" else (number + 1) % len(HUES)]
    color = tuple(int(value) for value in np.clip(np.array(hue) + rng.normal(0, 15, 3), 0, 255))
    box = (float(left), float(top), float(left + width), float(top + height))
    _draw(draw, CLASSES[number], box, color, kind)
    return Scene(picture, CLASSES[number], box)


def samples(kind: Kind, seeds: range) -> list[Sample]:
    """Scenes as a data set's pictures, which are drawn when they are read."""
    found = []
    for seed in seeds:
        made = scene(seed, kind)
        (left, top, right, bottom) = made.box
        objects = (Labelled(made.label, made.box, ((left + right) / 2, (top + bottom) / 2)),)
        found.append(Sample(f"{kind}-{seed}", partial(pixels, seed, kind), (SIDE, SIDE), objects))
    return found


@lru_cache(8192)
def pixels(seed: int, kind: Kind) -> NDArray[np.uint8]:
    """A scene's picture, (SIDE, SIDE, 3) RGB."""
    return np.asarray(scene(seed, kind).picture)


def _draw(draw: ImageDraw.ImageDraw, name: str, box: Xyxy, color: tuple[int, ...], kind: Kind) -> None:
    left, top, right, bottom = (round(value) for value in box)
    right, bottom = right - 1, bottom - 1  # PIL's far edges belong to the shape
    style = {"fill": color} if kind == "filled" else {"outline": color, "width": 4}
    if name == "circle":
        draw.ellipse((left, top, right, bottom), **style)
    elif name == "square":
        draw.rectangle((left, top, right, bottom), **style)
    elif name == "triangle":
        draw.polygon([(left, bottom), ((left + right) // 2, top), (right, bottom)], **style)
    else:
        third_x, third_y = (right - left) // 3, (bottom - top) // 3
        points = [
            (left + third_x, top), (right - third_x, top), (right - third_x, top + third_y), (right, top + third_y),
            (right, bottom - third_y), (right - third_x, bottom - third_y), (right - third_x, bottom),
            (left + third_x, bottom), (left + third_x, bottom - third_y), (left, bottom - third_y),
            (left, top + third_y), (left + third_x, top + third_y),
        ]  # fmt: skip
        draw.polygon(points, **style)
