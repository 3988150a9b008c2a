"""Train the starter encoder: a small open_clip model that tells the scenes' shapes and colours apart.

    python -m training.starter.encoder --folder build/starter --output tator_ml/weights/starter_encoder

Crops are cut by the recipe that serving uses (``tator_ml.engine.crops``) and drawn ahead into
``--folder``; a run that was interrupted goes on from the checkpoint there.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from tator_ml.engine.crops import CropRecipe
from tator_ml.engine.encoders.base import Encoder
from tator_ml.engine.encoders.openclip import MODEL_JSON, WEIGHTS_FILE, load_folder
from training.starter.prompts import loosened
from training.starter.scenes import CLASSES, COLORS_RGB, draw_scene

SIZE = 64
RECIPE = CropRecipe()
JITTER = 0.15  # share of its size by which each side of a box is moved
VARIANTS = 4  # crops kept of each object: the true box, then jittered ones
TRAIN_SEED, HELD_OUT_SEED = 1_000_000, 9_000_000
ENCODER_SCENES = 6500  # the seeds after these are left for the head
CHUNK = 250  # scenes in a file
COLORS = tuple(COLORS_RGB)

# 49,408 words of width 64 are 6.3 MB in half precision: two thirds of what starter weights may
# weigh. Generated captions need no more than 16 tokens and two layers.
MODEL_CFG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": SIZE, "layers": [1, 2, 2, 1], "width": 16, "head_width": 64},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 2},
}
PREPROCESS_CFG = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}

WITH_COLOR = (
    "{color} {shape}",
    "a {color} {shape}",
    "photo of a {color} {shape}",
    "the {color} {shape}",
    "a {shape}, {color}",
)
SHAPE_ONLY = ("{shape}", "a {shape}", "photo of a {shape}", "a picture of a {shape}", "the {shape}")

ROW = np.dtype([("pixels", np.uint8, (VARIANTS, SIZE, SIZE, 3)), ("shape", np.int64), ("color", np.int64)])


@dataclass(frozen=True)
class Crops:
    """Crops of the objects of consecutive scenes.

    Attributes:
        chunks: memory-mapped arrays of ``ROW``.
        shapes: (N,) int64, rows of ``CLASSES``.
        colors: (N,) int64, rows of ``COLORS``.
    """

    chunks: tuple[NDArray[Any], ...]
    shapes: NDArray[np.int64]
    colors: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.shapes)

    def take(self, rows: Sequence[int], variants: Sequence[int]) -> NDArray[np.uint8]:
        """Crops (n, SIZE, SIZE, 3) of the given objects in the given variants; 0 is the true box."""
        starts = np.cumsum([0] + [len(chunk) for chunk in self.chunks])
        places = np.searchsorted(starts, rows, "right") - 1
        return np.stack(
            [
                self.chunks[place]["pixels"][row - starts[place], variant]
                for place, row, variant in zip(places, rows, variants, strict=True)
            ]
        )

    def variant(self, variant: int) -> NDArray[np.uint8]:
        """The same variant of all objects, (N, SIZE, SIZE, 3)."""
        return np.concatenate([chunk["pixels"][:, variant] for chunk in self.chunks])


def crops_of_scene(seed: int) -> NDArray[Any]:
    """All variants of the crops of one scene's objects, (objects,) of ``ROW``."""
    scene = draw_scene(seed)
    rng = np.random.default_rng([0xC409, seed])
    rows = np.zeros(len(scene.objects), ROW)
    for row, item in zip(rows, scene.objects, strict=True):
        row["shape"], row["color"] = CLASSES.index(item.shape), COLORS.index(item.color)
        for variant in range(VARIANTS):
            box = loosened(rng, item.xyxy, JITTER) if variant else np.array(item.xyxy, np.float32)
            row["pixels"][variant] = RECIPE.crop(scene.image, tuple(box.tolist()), SIZE)
    return rows


def load_crops(folder: Path, first_seed: int, scenes: int) -> Crops:
    """Open the crops of seeds first_seed..first_seed+scenes-1, drawing what is missing."""
    cv2.setNumThreads(1)
    folder.mkdir(parents=True, exist_ok=True)
    chunks = []
    for first in range(first_seed, first_seed + scenes, CHUNK):
        count = min(CHUNK, first_seed + scenes - first)
        path = folder / f"crops-{RECIPE.key}-{SIZE}-{first}-{count}.npy"
        if not path.exists():
            partial = path.with_suffix(".part")
            with partial.open("wb") as file:
                np.save(file, np.concatenate([crops_of_scene(first + offset) for offset in range(count)]))
            partial.rename(path)
            print(f"crops of {first + count - first_seed} scenes of {scenes}", flush=True)
        chunks.append(np.load(path, mmap_mode="r"))
    shapes, colors = (np.concatenate([chunk[name] for chunk in chunks]) for name in ("shape", "color"))
    return Crops(tuple(chunks), shapes, colors)


def captions(shape: str, color: str | None) -> list[str]:
    """Every way in which a crop may be described; without a colour where it was changed."""
    templates = SHAPE_ONLY if color is None else WITH_COLOR
    texts = [template.format(shape=shape, color=color) for template in templates]
    vowels = tuple("aeiou")
    return [
        " ".join("an" if word == "a" and after.startswith(vowels) else word for word, after in pairs)
        for pairs in ([*zip(words, [*words[1:], ""], strict=True)] for words in map(str.split, texts))
    ]


@dataclass(frozen=True)
class Batch:
    """One object of each pair of shape and colour, so no caption with a colour fits two of them."""

    pixels: Tensor  # (B, 3, SIZE, SIZE) float 0..255
    tokens: Tensor  # (B, context) int64
    shapes: Tensor  # (B,) int64


class Batches:
    """Makes the batch of a step: the same for the same seed and step, wherever it is made."""

    def __init__(self, crops: Crops, seed: int) -> None:
        self.crops, self.seed = crops, seed
        pairs = crops.shapes * len(COLORS) + crops.colors
        self.members = [np.flatnonzero(pairs == pair) for pair in np.unique(pairs)]
        tokenizer = open_clip.SimpleTokenizer(context_length=MODEL_CFG["text_cfg"]["context_length"])
        self.tokens = {
            (shape, color): tokenizer(captions(name, None if color is None else COLORS[color]))
            for shape, name in enumerate(CLASSES)
            for color in (None, *range(len(COLORS)))
        }

    def make(self, step: int) -> Batch:
        """The step's batch, augmented."""
        rng = np.random.default_rng([self.seed, step])
        rows = np.array([rng.choice(members) for members in self.members])
        crops = self.crops.take(rows.tolist(), rng.integers(VARIANTS, size=len(rows)).tolist())
        pixels, tokens = np.empty(crops.shape, np.float32), []
        for place, row in enumerate(rows):
            pixels[place], color_kept = _augment(rng, crops[place])
            names_color = color_kept and rng.random() < 0.75
            shape = int(self.crops.shapes[row])
            ways = self.tokens[shape, int(self.crops.colors[row]) if names_color else None]
            tokens.append(ways[int(rng.integers(len(ways)))])
        return Batch(
            torch.from_numpy(pixels.transpose(0, 3, 1, 2)),  # channels_last in memory already
            torch.stack(tokens),
            torch.from_numpy(self.crops.shapes[rows]),
        )


def _augment(rng: np.random.Generator, crop: NDArray[np.uint8]) -> tuple[NDArray[np.float32], bool]:
    """A turned, mirrored, relit crop, and whether its colour can still be named."""
    crop = np.rot90(crop, int(rng.integers(4)))
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    color_kept = rng.random() < 0.7
    if not color_kept:
        crop = crop[..., rng.permutation(3)]
        if rng.random() < 0.3:
            crop = 255 - crop
    pixels = crop.astype(np.float32)
    pixels = (pixels - pixels.mean()) * rng.uniform(0.7, 1.3) + pixels.mean() + rng.uniform(-20, 20)
    return (pixels * rng.uniform(0.93, 1.07, 3)).clip(0, 255).astype(np.float32), color_kept


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 200 steps, then a cosine down to nothing."""
    return peak * min((step + 1) / 200, 0.5 + 0.5 * math.cos(math.pi * step / steps))


class Learner(nn.Module):
    """The model with what only training needs: a classifier of shapes on the unit embeddings."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.clip: Any = open_clip.CLIP(**MODEL_CFG).to(memory_format=torch.channels_last)
        self.shapes = nn.Linear(MODEL_CFG["embed_dim"], len(CLASSES))
        self.loss = open_clip.ClipLoss()
        self.register_buffer("mean", 255 * torch.tensor(PREPROCESS_CFG["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(PREPROCESS_CFG["std"]).view(1, 3, 1, 1))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """CLIP's contrastive loss and the classifier's cross-entropy."""
        with torch.autocast("cpu", torch.bfloat16):
            image = self.clip.encode_image((batch.pixels - self.mean) / self.std, normalize=True)
            text = self.clip.encode_text(batch.tokens, normalize=True)
        image, text = image.float(), text.float()
        scale = self.clip.logit_scale.exp().clamp(max=100)
        return self.loss(image, text, scale), F.cross_entropy(16 * self.shapes(image), batch.shapes)

    def groups(self) -> list[dict[str, Any]]:
        """Parameters with weight decay (matrices and filters) and without (all else, words too)."""
        decayed: list[nn.Parameter] = []
        free: list[nn.Parameter] = []
        for name, value in self.named_parameters():
            (decayed if value.ndim > 1 and "embedding" not in name else free).append(value)
        return [{"params": decayed, "weight_decay": 0.05}, {"params": free, "weight_decay": 0.0}]


def train(crops: Crops, steps: int, seed: int, peak: float, checkpoint: Path) -> nn.Module:
    """Train, or go on from ``checkpoint``; the open_clip model in evaluation mode."""
    torch.manual_seed(seed)
    learner, first = Learner().train(), 0
    optimizer = torch.optim.AdamW(learner.groups(), peak)
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        learner.load_state_dict(saved["learner"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
        print(f"resumed at step {first}", flush=True)
    batches, begun, running = Batches(crops, seed), time.monotonic(), np.zeros(2)
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        contrastive, shapes = learner(batches.make(step))
        optimizer.zero_grad(set_to_none=True)
        (contrastive + shapes).backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        running += (contrastive.item(), shapes.item())
        if (step + 1) % 100 == 0:
            rate = (time.monotonic() - begun) / (step + 1 - first)
            losses = dict(zip(("contrastive", "shapes"), (running / 100).round(4).tolist(), strict=True))
            print(json.dumps({"step": step + 1, **losses, "seconds_per_step": round(rate, 3)}), flush=True)
            running[:] = 0
        if (step + 1) % 250 == 0 or step + 1 == steps:
            partial = checkpoint.with_suffix(".part")
            state = {"learner": learner.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(state, partial)
            partial.rename(checkpoint)
    clip: nn.Module = learner.clip.eval()
    return clip


def save_model(clip: nn.Module, output: Path, training: dict[str, Any]) -> None:
    """Write JSON and half-precision safetensors, each under its name only when complete."""
    output.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in clip.state_dict().items()
    }
    description = {
        "name": "starter-clip",
        "model_cfg": MODEL_CFG,
        "preprocess_cfg": PREPROCESS_CFG,
        "training": training,
    }
    partial = output / f"{WEIGHTS_FILE}.part"
    save_file(tensors, partial, {"format": "pt", "model": "tator-starter-clip"})
    partial.chmod(0o644)  # safetensors writes for the owner alone
    partial.rename(output / WEIGHTS_FILE)
    partial = output / f"{MODEL_JSON}.part"
    partial.write_text(json.dumps(description, indent=2) + "\n", "utf-8")
    partial.rename(output / MODEL_JSON)


def linear_probe(encoder: Encoder, train_on: Crops, test_on: Crops) -> dict[str, float]:
    """Shape accuracy of a logistic regression on embeddings: at true and at jittered boxes."""
    variants = (0, 1)
    embedded = np.concatenate([encoder.embed(list(train_on.variant(variant))) for variant in variants])
    probe = LogisticRegression(C=10, max_iter=1000).fit(embedded, np.tile(train_on.shapes, len(variants)))
    names = ("true_box", *(f"jittered_box_{variant}" for variant in range(1, VARIANTS)))
    return {
        name: round(float(probe.score(encoder.embed(list(test_on.variant(variant))), test_on.shapes)), 4)
        for variant, name in enumerate(names)
    }


def main() -> None:
    """Read the options, train, save, and print the linear probe's accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--scenes", type=int, default=ENCODER_SCENES)
    parser.add_argument("--held-out", type=int, default=500, help="scenes for the linear probe")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--peak", type=float, default=2e-3)
    parser.add_argument("--folder", type=Path, default=Path("build/starter"))
    parser.add_argument("--output", type=Path, default=Path("tator_ml/weights/starter_encoder"))
    options = parser.parse_args()
    crops = load_crops(options.folder, TRAIN_SEED, options.scenes)
    checkpoint = options.folder / "encoder.ckpt"
    settings = {name: getattr(options, name) for name in ("steps", "scenes", "seed", "peak")}
    save_model(train(crops, options.steps, options.seed, options.peak, checkpoint), options.output, settings)
    held_out = load_crops(options.folder, HELD_OUT_SEED, options.held_out)
    few = load_crops(options.folder, TRAIN_SEED, min(options.scenes, 2000))
    print(json.dumps(linear_probe(load_folder(options.output), few, held_out)), flush=True)


if __name__ == "__main__":
    main()
