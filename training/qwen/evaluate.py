"""Asks a model about held-out pictures and reads its answers as they are read in service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from label_config.names import STRENGTHS, same_name
from tator_ml.vlm.coordinates import Coordinates, input_wh
from tator_ml.vlm.parsing import parse
from tator_ml.vlm.prompts import PromptStyle
from tator_sdk.geometry import Xyxy, area_xyxy, clip_xyxy
from training.qwen.collate import IGNORED, Encoder, collate
from training.qwen.conversations import Conversation, fixed
from training.qwen.scores import Boxes, Tally, tally
from training.samples import Sample

Step = Callable[[int, int], None]
"""Takes pictures done, and of how many."""

Answer = tuple[str, tuple[int, int]]
"""What a model wrote, and the size in pixels at which it saw the picture."""

Ask = Callable[[Sequence[Conversation]], Sequence[Answer]]
"""A model."""


def boxes_of(sample: Sample, classes: Sequence[str]) -> Boxes:
    """What is labelled on a picture."""
    return [(one.label, one.box) for one in sample.objects if one.label in classes]


def measure(
    ask: Ask,
    coordinates: Coordinates,
    samples: Sequence[Sample],
    classes: Sequence[str],
    style: PromptStyle,
    *,
    most: int = 200,
    batch: int = 1,
    step: Step = lambda done, total: None,
) -> Tally:
    """Ask a model for all classes of each picture, and match its boxes with the labelled ones.

    Args:
        ask: the model.
        coordinates: how it writes places.
        samples: pictures to ask about.
        classes: to ask for.
        style: how the model is asked.
        most: objects that an answer should have.
        batch: pictures that are asked about at once.
        step: told how far it is.
    """
    asked = [fixed(sample, classes, style, most) for sample in samples]
    found: list[list[tuple[str, Xyxy]]] = []
    for begin in range(0, len(asked), batch):
        step(begin, len(asked))
        part = asked[begin : begin + batch]
        for conversation, (text, seen_wh) in zip(part, ask(part), strict=True):
            found.append(read(text, conversation.sample.size_wh, seen_wh, coordinates, classes))
    return tally([boxes_of(sample, classes) for sample in samples], found, classes)


@torch.inference_mode()
def answers(model: Any, encoder: Encoder, asked: Sequence[Conversation], max_new_tokens: int) -> list[Answer]:
    """The greedy answers of a model that is being trained."""
    pictures = [encoder.picture(one) for one in asked]
    texts = [encoder.question(one.asked) for one in asked]
    inputs = encoder.processor(text=texts, images=pictures, return_tensors="pt", padding=True, padding_side="left").to(
        model.device
    )
    tokenizer = encoder.processor.tokenizer
    with evaluating(model):
        made = model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    said = tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    seen = [input_wh(grid, encoder.patch) for grid in inputs["image_grid_thw"].tolist()]
    return list(zip(said, seen, strict=True))


def read(
    text: str, size_wh: tuple[int, int], seen_wh: tuple[int, int], coordinates: Coordinates, classes: Sequence[str]
) -> list[tuple[str, Xyxy]]:
    """The boxes of an answer in the picture's pixels, clamped, each once; a label is taken for the class it names."""
    found: dict[tuple[str, Xyxy], None] = {}
    for one in parse(text).detections:
        if one.box is not None:
            box = clip_xyxy(coordinates.to_picture(one.box, size_wh, seen_wh), size_wh)
            if area_xyxy(box) > 0:
                found[_class_of(one.label, classes), box] = None
    return list(found)


@torch.no_grad()
def mean_loss(model: Any, encoder: Encoder, asked: Sequence[Conversation], batch: int, step: Step) -> float:
    """The mean loss of a token of the answers."""
    total, tokens = 0.0, 0
    pad = encoder.processor.tokenizer.pad_token_id
    with evaluating(model):
        for begin in range(0, len(asked), batch):
            step(begin, len(asked))
            inputs = collate([encoder.encode(one) for one in asked[begin : begin + batch]], pad)
            count = int((inputs["labels"] != IGNORED).sum())
            output = model(**{name: value.to(model.device) for name, value in inputs.items()})
            total, tokens = total + float(output.loss) * count, tokens + count
    return total / max(tokens, 1)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """The model without dropout, and in half precision where it has it; as it was before, afterwards."""
    trains = model.training
    model.eval()
    half = model.dtype if model.dtype in (torch.bfloat16, torch.float16) else torch.bfloat16
    cuda = model.device.type == "cuda" and torch.cuda.is_bf16_supported()
    try:
        with torch.autocast(model.device.type, half, enabled=cuda):
            yield
    finally:
        model.train(trains)


def _class_of(label: str, classes: Sequence[str]) -> str:
    for strength in STRENGTHS:
        for name in classes:
            if same_name(name, label, strength):
                return name
    return label
