"""Embedded boxes of generated scenes and of the shared photographs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo.labelled import draw_pictures
from tator_ml.engine.crops import CropRecipe
from tator_ml.engine.encoders.base import Encoder
from tator_ml.images.decode import decode_image
from tator_sdk.geometry import Xyxy
from training.starter.names import DISPLAY_NAMES, display_name
from training.starter.prompts import loosened
from training.starter.scenes import SceneSettings, draw_scene

FIXTURES = Path(__file__).parents[2] / "shared" / "fixtures"
PHOTOS = FIXTURES / "photos"
PHOTO_ENCODER = FIXTURES / "encoders" / "mobilenet_v2_hf"


@dataclass(frozen=True, eq=False)
class Boxes:
    """Embedded boxes with their classes and pictures.

    Attributes:
        embeddings: (N, D) float32, rounded to float16 as the cache rounds them.
        labels: class of each; ``images`` a name of its picture.
    """

    embeddings: NDArray[np.float32]
    labels: list[str]
    images: list[str]

    def where(self, chosen: NDArray[np.bool_]) -> Boxes:
        """The boxes for which ``chosen`` (N,) is true."""
        rows = np.flatnonzero(chosen)
        return Boxes(self.embeddings[rows], [self.labels[row] for row in rows], [self.images[row] for row in rows])


def scene_boxes(
    encoder: Encoder,
    seeds: range,
    settings: SceneSettings | None = None,
    jitter: float = 0.0,
    keep: Callable[[str], bool] = lambda label: True,
) -> Boxes:
    """Boxes of scenes, each side moved by up to ``jitter`` of its size; ``keep`` decides by class."""
    recipe, rng = CropRecipe(), np.random.default_rng(seeds.start)
    parts, labels, images = [], [], []
    for seed in seeds:
        scene = draw_scene(seed, settings or SceneSettings())
        chosen = [one for one in scene.objects if keep(display_name(one.shape))]
        if not chosen:
            continue
        boxes = [as_xyxy(loosened(rng, one.xyxy, jitter)) for one in chosen]
        parts.append(encoder.embed([recipe.crop(scene.image, box, encoder.size) for box in boxes]))
        labels += [display_name(one.shape) for one in chosen]
        images += [f"scene-{seed}"] * len(chosen)
    return Boxes(np.concatenate(parts).astype(np.float16).astype(np.float32), labels, images)


def photo_boxes(embed: Callable[[NDArray[np.uint8], list[Xyxy]], NDArray[np.float32]]) -> Boxes:
    """Every instance of the shared photographs; ``embed`` gets a picture (H, W, 3) and its boxes."""
    content = json.loads((PHOTOS / "instances.json").read_text())
    names = {one["id"]: one["name"] for one in content["categories"]}
    parts, labels, images = [], [], []
    for picture in content["images"]:
        mine = [one for one in content["annotations"] if one["image_id"] == picture["id"]]
        if not mine:
            continue
        pixels = decode_image((PHOTOS / "images" / picture["file_name"]).read_bytes(), 10**8)
        boxes = [(x, y, x + width, y + height) for x, y, width, height in (one["bbox"] for one in mine)]
        parts.append(embed(pixels, boxes))
        labels += [names[one["category_id"]] for one in mine]
        images += [picture["file_name"]] * len(mine)
    return Boxes(np.concatenate(parts), labels, images)


def yolo_folder(images: Path, seeds: range, scenes: SceneSettings) -> int:
    """Draw scenes with YOLO labels beside them; returns the number of boxes."""
    truth = draw_pictures(images, seeds, scenes, DISPLAY_NAMES.__getitem__)
    names = list(DISPLAY_NAMES.values())
    (images / "labelmap.txt").write_text("\n".join(names))
    for name, (objects, (width, height)) in truth.items():
        lines = []
        for box in objects:
            x0, y0, x1, y1 = box.xyxy
            shares = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
            lines.append(" ".join([str(names.index(box.label)), *(f"{share:.6f}" for share in shares)]))
        (images / name).with_suffix(".txt").write_text("\n".join(lines))
    return sum(len(objects) for objects, _ in truth.values())


def as_xyxy(corners: NDArray[np.floating]) -> Xyxy:
    """Four numbers as a box."""
    x0, y0, x1, y1 = (float(edge) for edge in corners)
    return x0, y0, x1, y1
