"""Fit the starter class head on embeddings of generated scenes.

    python -m training.starter.head --folder build/starter --output tator_ml/weights/starter_head

It is taught as any head is (``training.clip.learn``), with crops of empty places as "none of these". Scenes are
those that its encoder did not learn from; the fifth that the trainer holds out gives temperature and thresholds, and
what is reported is measured on further scenes. Crops are drawn ahead into ``--folder``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tator_ml.engine import encoders
from tator_ml.engine.encoders.base import Encoder
from tator_ml.engine.head import Head
from tator_sdk.geometry import Xyxy
from tator_sdk.requests import HeadTraining
from training.clip.calibration import log_loss
from training.clip.dataset import BACKGROUND, empty_places
from training.clip.learn import Examples, learn
from training.clip.metrics import measure
from training.starter.encoder import (
    CHUNK,
    ENCODER_SCENES,
    HELD_OUT_SEED,
    RECIPE,
    SIZE,
    TRAIN_SEED,
    VARIANTS,
    load_crops,
)
from training.starter.names import DISPLAY_NAMES, display_name
from training.starter.scenes import CLASSES, draw_scene

NAMES = (*DISPLAY_NAMES.values(), BACKGROUND)
EMPTY_EACH = 4  # empty places of a scene: about as many crops as two classes have there


@dataclass(frozen=True, eq=False)
class Boxes:
    """Embedded boxes of scenes.

    Attributes:
        embeddings: (N, D) float32, rounded to float16 as the engine and the cache round them.
        labels: of ``NAMES``; ``scenes`` names the scene of each, which all variants of an object share.
    """

    embeddings: NDArray[np.float32]
    labels: list[str]
    scenes: list[str]

    def __add__(self, other: Boxes) -> Boxes:
        return Boxes(
            np.concatenate([self.embeddings, other.embeddings]),
            self.labels + other.labels,
            self.scenes + other.scenes,
        )

    @property
    def truth(self) -> NDArray[np.int64]:
        """(N,) places in ``NAMES``."""
        return np.array([NAMES.index(label) for label in self.labels], np.int64)


@dataclass(frozen=True, eq=False)
class EmptyCrops:
    """Crops of places without objects.

    Attributes:
        pixels: (M, SIZE, SIZE, 3) uint8.
        seeds: (M,) scenes that they are cut from.
        objects: (scenes,) how many objects each scene has, empty places or not.
    """

    pixels: NDArray[np.uint8]
    seeds: NDArray[np.int64]
    objects: NDArray[np.int64]


def empty_crops(seeds: range) -> EmptyCrops:
    """Up to ``EMPTY_EACH`` places of each scene, in sizes that the scenes' objects have."""
    scenes = [draw_scene(seed) for seed in seeds]
    boxes: list[list[Xyxy]] = [[one.xyxy for one in scene.objects] for scene in scenes]
    sizes = [(x1 - x0, y1 - y0) for found in boxes for x0, y0, x1, y1 in found]
    pixels, places = [], []
    for seed, scene, found in zip(seeds, scenes, boxes, strict=True):
        height, width = scene.image.shape[:2]
        rng = np.random.default_rng([0xE397, seed])
        for place in empty_places(rng, found, sizes, (width, height), EMPTY_EACH):
            pixels.append(RECIPE.crop(scene.image, place, SIZE))
            places.append(seed)
    return EmptyCrops(np.stack(pixels), np.array(places), np.array([len(found) for found in boxes]))


def load_empty(folder: Path, first_seed: int, scenes: int) -> EmptyCrops:
    """Open the empty places of seeds first_seed..first_seed+scenes-1, drawing what is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for first in range(first_seed, first_seed + scenes, CHUNK):
        count = min(CHUNK, first_seed + scenes - first)
        path = folder / f"empty-{RECIPE.key}-{SIZE}-{EMPTY_EACH}-{first}-{count}.npz"
        if not path.exists():
            partial = path.with_suffix(".part")
            with partial.open("wb") as file:
                np.savez(file, **vars(empty_crops(range(first, first + count))))
            partial.rename(path)
            print(f"empty places of {first + count - first_seed} scenes of {scenes}", flush=True)
        with np.load(path) as kept:
            parts.append(EmptyCrops(**kept))
    return EmptyCrops(
        *(np.concatenate([vars(part)[name] for part in parts]) for name in ("pixels", "seeds", "objects"))
    )


def scene_boxes(encoder: Encoder, folder: Path, first_seed: int, scenes: int, variants: Sequence[int]) -> Boxes:
    """The scenes' objects in these variants; 0 is the true box, the others are jittered."""
    crops, objects = load_crops(folder, first_seed, scenes), load_empty(folder, first_seed, scenes).objects
    seeds = np.repeat(np.arange(first_seed, first_seed + scenes), objects)
    labels = [display_name(CLASSES[shape]) for shape in crops.shapes]
    parts = [embedded(encoder, crops.variant(variant)) for variant in variants]
    return Boxes(np.concatenate(parts), labels * len(parts), named(seeds) * len(parts))


def empty_boxes(encoder: Encoder, folder: Path, first_seed: int, scenes: int) -> Boxes:
    """The scenes' empty places."""
    empty = load_empty(folder, first_seed, scenes)
    return Boxes(embedded(encoder, empty.pixels), [BACKGROUND] * len(empty.seeds), named(empty.seeds))


def embedded(encoder: Encoder, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Embeddings (N, D) as a head gets them."""
    return encoder.embed(list(crops)).astype(np.float16).astype(np.float32)


def named(seeds: NDArray[np.int64]) -> list[str]:
    """Scenes as the split knows pictures."""
    return [f"scene-{seed}" for seed in seeds]


def figures(head: Head, boxes: Boxes) -> dict[str, float | None]:
    """Accuracy, answered share and precision, and calibration, as one would see them in use."""
    found = measure(head, boxes.embeddings, boxes.truth)
    kept = ("boxes", "accuracy", "answered", "precision_of_answers", "calibration_error")
    return {**{name: found[name] for name in kept}, "log_loss": round(log_loss(head, boxes.embeddings, boxes.truth), 4)}


def main() -> None:
    """Read the options, teach, measure, save, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=3000, help="scenes to teach with; a fifth of them is held out")
    parser.add_argument("--held-out", type=int, default=250, help="further scenes to measure on")
    parser.add_argument("--precision", type=float, default=0.98, help="share of answers that must be right")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--encoder", default="starter", help="name for tator_ml.engine.encoders.load")
    parser.add_argument("--folder", type=Path, default=Path("build/starter"))
    parser.add_argument("--output", type=Path, default=Path("tator_ml/weights/starter_head"))
    options = parser.parse_args()
    encoder, first = encoders.load(options.encoder), TRAIN_SEED + ENCODER_SCENES
    boxes = scene_boxes(encoder, options.folder, first, options.scenes, range(VARIANTS))
    boxes += empty_boxes(encoder, options.folder, first, options.scenes)
    # Examples are many, so they need little regularisation, and classes are even but for the background. Every class
    # of the demo is known: no share of strangers is to be expected, and what is empty is learned instead.
    request = HeadTraining(
        images_path=options.folder, precision=options.precision, seed=options.seed, unknown_share=0,
        inverse_regularization=1000, class_weight="none",
        background=EMPTY_EACH, crop_margin=RECIPE.margin, crop_square=RECIPE.square,
    )  # fmt: skip
    examples = Examples(boxes.embeddings, boxes.labels, boxes.scenes, NAMES, BACKGROUND)
    head = learn(examples, request, encoder.version, options.encoder).head
    head = replace(head, version=f"starter-head-{head.digest[:8]}")

    fresh = (encoder, options.folder, HELD_OUT_SEED + options.held_out, options.held_out)
    metrics: dict[str, Any] = {
        "true_box": figures(head, scene_boxes(*fresh, range(1))),
        "jittered_box": figures(head, scene_boxes(*fresh, range(1, VARIANTS))),
        "empty_place": figures(head, empty_boxes(*fresh)),
        "settings": {name: getattr(options, name) for name in ("scenes", "held_out", "precision", "seed")},
    }
    head.save(options.output, metrics)
    chosen = {"temperature": head.temperature, "threshold": head.threshold, "margin": head.margin}
    print(json.dumps({"version": head.version, **chosen, **metrics}, indent=2))


if __name__ == "__main__":
    main()
