"""Scenes simple enough for a model of a million parameters: one or two large shapes on a quiet ground.

Two kinds: ``filled`` shapes on a light ground, each class in a hue of its own, and ``outlined`` ones on a dark ground,
where the same classes have other hues. Positions, sizes, hues, ground and noise are drawn anew for each scene.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from tator_sdk.geometry import Xyxy, iou_xyxy

Kind = Literal["filled", "outlined"]
CLASSES = ("circle", "square", "triangle", "cross")
HUES = ((220, 60, 50), (60, 110, 220), (70, 180, 80), (230, 190, 60))
SIDE = 128  # pixels


@dataclass(frozen=True)
class Scene:
    """A picture (PIL, ``SIDE`` wide and high) and its objects: classes with boxes in pixels, from top to bottom."""

    picture: Image.Image
    objects: tuple[tuple[str, Xyxy], ...]


def scene(seed: int, kind: Kind) -> Scene:
    """The scene of a seed; the same for ever."""
    rng = np.random.default_rng([seed, ("filled", "outlined").index(kind)])
    level = rng.uniform(130, 220) if kind == "filled" else rng.uniform(10, 70)
    ground = level + rng.normal(0, 6, 3) + rng.normal(0, 8, (SIDE, SIDE, 1))
    picture = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    placed: list[tuple[str, Xyxy]] = []
    for _ in range(rng.integers(1, 3)):
        box = _free_place(rng, [taken for _, taken in placed])
        if box is not None:
            number = int(rng.integers(len(CLASSES)))
            hue = HUES[number if kind == "filled" else (number + 1) % len(HUES)]
            color = tuple(int(value) for value in np.clip(np.array(hue) + rng.normal(0, 15, 3), 0, 255))
            _draw(draw, CLASSES[number], box, color, kind)
            placed.append((CLASSES[number], box))
    return Scene(picture, tuple(sorted(placed, key=lambda one: (one[1][1], one[1][0]))))


def write_yolo(folder: Path, kind: Kind, seeds: Sequence[int]) -> Path:
    """Scenes as a YOLO folder; one that stands there whole is kept."""
    done = folder / "complete"
    if not done.exists():
        for name in ("images", "labels"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            made = scene(seed, kind)
            made.picture.save(folder / "images" / f"{kind}-{seed}.png")
            (folder / "labels" / f"{kind}-{seed}.txt").write_text("".join(_lines(made)))
        (folder / "labelmap.txt").write_text("\n".join(CLASSES) + "\n")
        done.touch()
    return folder


def _lines(made: Scene) -> Iterator[str]:
    for name, (left, top, right, bottom) in made.objects:
        values = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
        yield f"{CLASSES.index(name)} {' '.join(f'{value / SIDE:.6f}' for value in values)}\n"


def _free_place(rng: np.random.Generator, taken: Sequence[Xyxy]) -> Xyxy | None:
    for _ in range(50):
        width, height = rng.integers(SIDE // 4, SIDE // 2, 2)
        left, top = rng.integers(0, SIDE - width), rng.integers(0, SIDE - height)
        box = (float(left), float(top), float(left + width), float(top + height))
        if all(iou_xyxy(box, other) == 0 for other in taken):
            return box
    return None


def _draw(draw: ImageDraw.ImageDraw, name: str, box: Xyxy, color: tuple[int, ...], kind: Kind) -> None:
    left, top, right, bottom = (round(value) for value in box)
    right, bottom = right - 1, bottom - 1  # PIL's far edges belong to the shape
    style = {"fill": color} if kind == "filled" else {"outline": color, "width": 4}
    if name == "circle":
        draw.ellipse((left, top, right, bottom), **style)  # type: ignore[arg-type]
    elif name == "square":
        draw.rectangle((left, top, right, bottom), **style)  # type: ignore[arg-type]
    elif name == "triangle":
        draw.polygon([(left, bottom), ((left + right) // 2, top), (right, bottom)], **style)  # type: ignore[arg-type]
    else:
        third_x, third_y = (right - left) // 3, (bottom - top) // 3
        points = [
            (left + third_x, top), (right - third_x, top), (right - third_x, top + third_y), (right, top + third_y),
            (right, bottom - third_y), (right - third_x, bottom - third_y), (right - third_x, bottom),
            (left + third_x, bottom), (left + third_x, bottom - third_y), (left, bottom - third_y),
            (left, top + third_y), (left + third_x, top + third_y),
        ]  # fmt: skip
        draw.polygon(points, **style)  # type: ignore[arg-type]
