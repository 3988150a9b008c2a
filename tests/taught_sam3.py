"""A tiny SAM 3 that knows a picture by heart: phrases of its classes, and boxes drawn around its objects.

For tests of everything around a model that really finds: it loads, is asked and answers as a published one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torchvision.ops import box_convert, box_iou
from transformers import AutoProcessor, Sam3Model

from tator_sdk.geometry import Xyxy
from training.sam3.batches import Encoder
from training.sam3.forward import Layers, forward
from training.sam3.losses import Targets, Weights, loss
from training.sam3.matcher import Costs
from training.sam3.phrases import VISUAL, Question
from training.sam3.tiny import Shape, save_tiny
from training.sam3.tiny_start import prepare
from training.sam3.weights import assemble, save_learned
from training.samples import Labelled, Sample

MOST_STEPS = 900
EVERY = 20
SURE, SILENT, CLOSE = 0.65, 0.35, 0.82
LOOSELY = 0.08
SHAPE = Shape(side=64, patch=8, vision_hidden=32, vision_layers=1, window=8, hidden=80, layers=1, queries=9)


def looser(xyxy: Xyxy, by: float) -> Xyxy:
    """A box as one draws it by hand, larger by a share of its sides."""
    wide, high = by * (xyxy[2] - xyxy[0]), by * (xyxy[3] - xyxy[1])
    return xyxy[0] - wide, xyxy[1] - high, xyxy[2] + wide, xyxy[3] + high


def questions_of(objects: Sequence[Labelled]) -> list[Question]:
    """Each class by its name, and where there are several of one, each of them by a box drawn loosely around it."""
    asked = []
    for label in dict.fromkeys(one.label for one in objects):
        alike = tuple(one for one in objects if one.label == label)
        asked.append(Question(label, alike))
        if len(alike) > 1:
            asked += [Question(VISUAL, alike, (looser(one.box, LOOSELY),)) for one in alike]
    return asked


def teach(folder: Path, sample: Sample) -> Path:
    """Write a model that finds each object of a picture by its class's name, and by a box around one like it.

    Args:
        folder: where to.
        sample: the picture with its objects.

    Returns:
        ``folder``.
    """
    asked = questions_of(sample.objects)
    base = save_tiny(folder.with_name(f"{folder.name}-base"), SHAPE, [one.phrase for one in asked], seed=1)
    model: Any = Sam3Model.from_pretrained(base)
    prepare(model)
    processor: Any = AutoProcessor.from_pretrained(base)  # type: ignore[no-untyped-call]
    batch = Encoder(processor, SHAPE.side).batch([(sample, sample.read(), asked)])
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    warm_up = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / 20) * 0.998**step)
    for step in range(MOST_STEPS):
        answers, _ = forward(model, batch.asked)
        if step % EVERY == 0 and _known(answers, batch.targets):
            break
        value, _ = loss(answers, batch.targets, Weights(box=20.0, giou=5.0), Costs())
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        warm_up.step()
    else:
        raise AssertionError(f"not learnt in {MOST_STEPS} steps: loss {float(value.detach()):.3f}")
    learned = folder.with_name(f"{folder.name}-learned.safetensors")
    save_learned(learned, dict(model.named_parameters()), 1.0)
    return assemble(base, learned, folder)


def _known(answers: Layers, targets: Targets) -> bool:
    """Whether each object is found by a query that is sure of it, and no other query is."""
    scores, boxes = answers.scores.detach(), box_convert(answers.boxes[-1].detach(), "cxcywh", "xyxy")
    truth = box_convert(targets.boxes, "cxcywh", "xyxy")
    for question in range(targets.questions):
        wanted = truth[targets.question == question]
        sure = scores[question] > SURE
        if int(sure.sum()) != len(wanted) or bool(((scores[question] > SILENT) != sure).any()):
            return False
        if len(wanted) and float(box_iou(wanted, boxes[question][sure]).amax(1).min()) < CLOSE:
            return False
    return True
