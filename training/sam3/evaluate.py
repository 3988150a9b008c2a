"""Asks a model about held-out pictures for every class, as it is asked in service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_convert

from tator_sdk.geometry import clip_xyxy
from training.sam3.batches import Encoder
from training.sam3.forward import Asked, answer, read, see
from training.sam3.phrases import Phrases
from training.sam3.scores import MOST_ANSWERS, Found, Tally, Truth, tally
from training.sam3.weights import detector_config, load, read_config
from training.samples import Sample

AT_ONCE = 16
"""Phrases in one pass of the decoder."""

Step = Callable[[int, int], None]
"""Takes pictures done, and of how many."""


def evaluate(
    folder: Path,
    samples: Sequence[Sample],
    classes: Sequence[str],
    phrases: Phrases,
    device: str,
    *,
    half: bool = False,
    step: Step = lambda done, total: None,
) -> Tally:
    """Load a model and ask it for all classes on each picture.

    Args:
        folder: of the model, in the published layout.
        samples: pictures to ask about.
        classes: to ask for.
        phrases: of each class; the first one asks.
        device: to run on.
        half: compute in bf16.
        step: told how far it is; may stop it.

    Raises:
        BaseError: the model cannot be read.
    """
    config = read_config(folder)
    model, processor = load(folder, config)
    encoder = Encoder(processor, side_of(config))
    found = predict(model.to(device).eval(), encoder, samples, classes, phrases, half=half, step=step)
    return tally([truth_of(sample, classes) for sample in samples], found, classes)


def truth_of(sample: Sample, classes: Sequence[str]) -> Truth:
    """What is labelled on a picture."""
    return [(one.label, one.box) for one in sample.objects if one.label in classes]


def side_of(config: Any) -> int:
    """Side of the square that a model's pictures are stretched to, pixels."""
    return int(detector_config(config).vision_config.image_size)


@torch.no_grad()
def predict(
    model: Any,
    encoder: Encoder,
    samples: Sequence[Sample],
    classes: Sequence[str],
    phrases: Phrases,
    *,
    half: bool = False,
    step: Step = lambda done, total: None,
) -> list[Found]:
    """What a loaded model answers: of each picture and class the best boxes with their scores.

    Args:
        model: a :class:`transformers.Sam3Model` on its device.
        encoder: makes its inputs.
        samples: pictures.
        classes: to ask for.
        phrases: of each class; the first one asks.
        half: compute in bf16.
        step: told how far it is.
    """
    device = next(model.parameters()).device
    answered: list[Found] = []
    with _still(model), torch.autocast(device.type, torch.bfloat16, enabled=half):
        tokens, valid = (one.to(device) for one in encoder.phrases([phrases[name][0] for name in classes]))
        features = read(model, tokens, valid)
        for done, sample in enumerate(samples):
            step(done, len(samples))
            seen = see(model, encoder.pictures([sample.read()]).to(device))
            found: list[tuple[str, float, tuple[float, float, float, float]]] = []
            for begin in range(0, len(classes), AT_ONCE):
                part = slice(begin, begin + AT_ONCE)
                picture = torch.zeros(len(tokens[part]), dtype=torch.long, device=device)
                asked = Asked(torch.zeros(0, device=device), tokens[part], valid[part], picture)
                layers, _ = answer(model, seen, features[part], asked)
                found += _boxes(layers.scores, layers.boxes[-1], classes[part], sample.size_wh)
            answered.append(found)
    return answered


def _boxes(
    scores: Tensor, boxes: Tensor, classes: Sequence[str], size_wh: tuple[int, int]
) -> Iterator[tuple[str, float, tuple[float, float, float, float]]]:
    best = scores.float().topk(min(MOST_ANSWERS, scores.shape[1]), dim=1)
    frame = torch.tensor([*size_wh, *size_wh], device=boxes.device)
    placed = box_convert(boxes.float(), "cxcywh", "xyxy") * frame
    for row, name in enumerate(classes):
        for score, box in zip(best.values[row].tolist(), placed[row][best.indices[row]].tolist(), strict=True):
            yield name, score, clip_xyxy(box, size_wh)


@contextmanager
def _still(model: Any) -> Iterator[None]:
    """The model without dropout; each of its modules as it was before, afterwards."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
