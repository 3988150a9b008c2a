"""Train the starter segmenter on generated scenes.

The learning rate warms up, stays, and falls over the last quarter of ``--steps``, so a run that
stands in its level part can be given more steps and resumed as if it had been meant so.
"""

from __future__ import annotations

import argparse
import json
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from tator_ml.engine.segmenters.starter_model import IMAGE_SIZE, StarterSam, tie_cross_attention
from training.starter.pack import ScenePack, load_pack
from training.starter.prompts import loosened, neighbours, point_inside, tight_box

BATCH = 8
POINT_PROMPTS, BOX_PROMPTS = 4, 2  # for each image
POINTS = 4  # in each prompt, padded
MASK_SIZE = 128


@dataclass(frozen=True)
class Batch:
    """One step's material; P and Q are the numbers of point and box prompts."""

    images: Tensor  # (B, 3, 256, 256) float 0..255
    points: Tensor  # (P, N, 2)
    labels: Tensor  # (P, N)
    point_image: Tensor  # (P,) row of ``images``
    point_target: Tensor  # (P, 128, 128) coverage 0..1
    boxes: Tensor  # (Q, 4)
    box_image: Tensor  # (Q,)
    box_target: Tensor  # (Q, 128, 128)


def _augment(
    rng: np.random.Generator, image: NDArray[np.uint8], instances: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    turns = int(rng.integers(4))
    image, instances = np.rot90(image, turns), np.rot90(instances, turns)
    if rng.random() < 0.5:
        image, instances = image[:, ::-1], instances[:, ::-1]
    pixels = image[..., rng.permutation(3)].astype(np.float32)
    if rng.random() < 0.15:
        pixels = 255 - pixels
    pixels = pixels * rng.uniform(0.7, 1.3) + rng.uniform(-25, 25)
    return pixels.clip(0, 255), np.ascontiguousarray(instances)


def _point_prompt(
    rng: np.random.Generator, instances: NDArray[np.uint8], label: int, mask: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    points = np.zeros((POINTS, 2), np.float32)
    labels = np.full(POINTS, -1, np.int64)
    kind = rng.random()
    positive = 1 if kind < 0.8 else 2
    negative = 0 if kind < 0.5 else 1 if kind < 0.8 else int(rng.integers(0, 3))
    for index in range(positive):
        points[index], labels[index] = point_inside(rng, mask), 1
    close = neighbours(instances, label)
    for index in range(positive, positive + negative):
        if close and rng.random() < 0.8:
            other = instances == int(rng.choice(close))
            points[index] = point_inside(rng, other)
        else:
            x0, y0, x1, y1 = tight_box(mask)
            spread = 0.8 * max(x1 - x0, y1 - y0)
            for _ in range(20):
                point = np.array([(x0 + x1) / 2, (y0 + y1) / 2]) + rng.uniform(-spread, spread, 2)
                point = point.clip(0, IMAGE_SIZE - 1)
                if not mask[int(point[1]), int(point[0])]:
                    break
            else:
                continue
            points[index] = point
        labels[index] = 0
    return points, labels


def make_batch(pack: ScenePack, seed: int, step: int) -> Batch:
    """The step's batch: the same for the same seed and step, wherever and whenever it is made."""
    rng = np.random.default_rng([seed, step])
    images: list[NDArray[np.float32]] = []
    points, labels, point_target = [], [], []
    boxes, box_target = [], []
    while len(images) < BATCH:
        index = int(rng.integers(len(pack)))
        image, instances = _augment(rng, pack.images[index], pack.instances[index])
        present = [int(label) for label in np.unique(instances) if label]
        if not present:
            continue
        images.append(image.transpose(2, 0, 1))
        for turn in range(POINT_PROMPTS + BOX_PROMPTS):
            label = int(rng.choice(present))
            mask = instances == label
            target = cv2.resize(mask.astype(np.float32), (MASK_SIZE, MASK_SIZE), interpolation=cv2.INTER_AREA)
            if turn < POINT_PROMPTS:
                where, sign = _point_prompt(rng, instances, label, mask)
                points.append(where)
                labels.append(sign)
                point_target.append(target)
            else:
                boxes.append(loosened(rng, tight_box(mask), rng.choice([0.03, 0.2])))
                box_target.append(target)
    rows = torch.arange(BATCH)
    return Batch(
        torch.from_numpy(np.stack(images)).contiguous(memory_format=torch.channels_last),
        torch.from_numpy(np.stack(points)),
        torch.from_numpy(np.stack(labels)),
        rows.repeat_interleave(POINT_PROMPTS),
        torch.from_numpy(np.stack(point_target)),
        torch.from_numpy(np.stack(boxes).clip(0, IMAGE_SIZE)),
        rows.repeat_interleave(BOX_PROMPTS),
        torch.from_numpy(np.stack(box_target)),
    )


def batches(pack: ScenePack, seed: int, first: int, last: int) -> Iterator[Batch]:
    """Batches of steps first..last-1, made one thread ahead."""
    ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=4)

    def fill() -> None:
        try:
            for step in range(first, last):
                ready.put(make_batch(pack, seed, step))
        except BaseException as error:  # whoever waits for the batch would wait for ever
            ready.put(error)

    threading.Thread(target=fill, daemon=True).start()
    for _ in range(first, last):
        made = ready.get()
        if isinstance(made, BaseException):
            raise made
        yield made


def mask_loss(logits: Tensor, quality: Tensor, target: Tensor) -> Tensor:
    """SAM's recipe for one batch of prompts: the single mask, the best of three, predicted IoU.

    Args:
        logits: (P, 4, H, W).
        quality: (P, 4) predicted IoU.
        target: (P, H, W) coverage 0..1.
    """
    logits, quality = logits.float(), quality.float()
    wanted = target[:, None].expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean((2, 3))
    share = logits.sigmoid()
    overlap = (share * wanted).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (share.sum((2, 3)) + wanted.sum((2, 3)) + 1)
    each = 5 * entropy + dice
    with torch.no_grad():
        answer, truth = logits > 0, wanted > 0.5
        iou = (answer & truth).sum((2, 3)) / (answer | truth).sum((2, 3)).clamp(min=1)
    best_of_three = each[:, 1:].min(1).values + 0.1 * each[:, 1:].mean(1)
    return (each[:, 0] + best_of_three).mean() + F.mse_loss(quality, iou)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 300 steps, level, then down to nothing over the last quarter."""
    decay_from = 0.75 * steps
    if step > decay_from:
        return float(peak * max(0.0, 1 - ((step - decay_from) / (steps - decay_from)) ** 0.5))
    return peak * min(1.0, (step + 1) / 300)


def step_loss(model: StarterSam, batch: Batch) -> Tensor:
    """Loss of one batch, image features computed once for all of its prompts."""
    with torch.autocast("cpu" if batch.images.device.type == "cpu" else "cuda", torch.bfloat16):
        features = model.encode(batch.images)
        rows = {name: value[batch.point_image] for name, value in features.items()}
        from_points = model.decode(rows, batch.points, batch.labels, None)
        rows = {name: value[batch.box_image] for name, value in features.items()}
        from_boxes = model.decode(rows, None, None, batch.boxes)
    weight = BOX_PROMPTS / (POINT_PROMPTS + BOX_PROMPTS)
    point_loss = mask_loss(*from_points, batch.point_target)
    return (1 - weight) * point_loss + weight * mask_loss(*from_boxes, batch.box_target)


@torch.no_grad()
def follow(average: StarterSam, model: StarterSam, share: float) -> None:
    """Move the averaged weights a little towards the trained ones.

    Batch statistics are averaged too: those of the trained weights do not fit the averaged ones.
    """
    for mean, value in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(value, share)
    for kept, current in zip(average.buffers(), model.buffers(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(current, share)
        else:
            kept.copy_(current)


def train(steps: int, scenes: int, seed: int, folder: Path, output: Path, peak: float) -> None:
    """Train, or go on from the checkpoint in ``folder``; half-precision weights go to ``output``."""
    pack = load_pack(folder, scenes)
    torch.manual_seed(seed)
    model = StarterSam().to(memory_format=torch.channels_last).train()
    tie_cross_attention(model)
    average = StarterSam().requires_grad_(False).eval()
    average.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), peak, weight_decay=0.02)
    checkpoint, first = folder / "segmenter.ckpt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
        print(f"resumed at step {first}", flush=True)
    begun, running = time.monotonic(), 0.0
    for step, batch in enumerate(batches(pack, seed, first, steps), start=first):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        loss = step_loss(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        follow(average, model, max(0.002, 1 / (step + 2)))
        running += float(loss)
        if (step + 1) % 50 == 0:
            rate = (time.monotonic() - begun) / (step + 1 - first)
            print(
                json.dumps({"step": step + 1, "loss": round(running / 50, 4), "seconds_per_step": round(rate, 3)}),
                flush=True,
            )
            running = 0.0
        if (step + 1) % 250 == 0 or step + 1 == steps:
            state = {"model": model.state_dict(), "average": average.state_dict()}
            partial = checkpoint.with_suffix(".part")
            torch.save({**state, "optimizer": optimizer.state_dict(), "step": step + 1}, partial)
            partial.rename(checkpoint)
            save_weights(average, output)


def save_weights(model: StarterSam, output: Path) -> None:
    """Write half-precision safetensors, under their name only when complete."""
    tensors = {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    partial = output.with_suffix(".part")
    save_file(tensors, partial, {"format": "pt", "model": "tator-starter-sam"})
    partial.rename(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--scenes", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--peak", type=float, default=1.5e-3)
    parser.add_argument("--folder", type=Path, default=Path("build/starter"))
    parser.add_argument("--output", type=Path, default=Path("build/starter/segmenter.safetensors"))
    options = parser.parse_args()
    train(options.steps, options.scenes, options.seed, options.folder, options.output, options.peak)


if __name__ == "__main__":
    main()
