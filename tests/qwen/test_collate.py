"""Targets lie where the processor puts the object, and only the answer's tokens count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoProcessor

from tator_ml.vlm.coordinates import Coordinates, coordinates_of, input_wh
from tator_ml.vlm.parsing import Detected, answer, parse
from tator_ml.vlm.prompts import PromptStyle
from tests.qwen.material import CLASSES, sample
from training.qwen.collate import IGNORED, Encoder, Tensors, collate
from training.qwen.conversations import Conversation, fixed
from training.qwen.tiny import FAMILIES
from training.samples import Labelled

SIZES = [(84, 84), (333, 100), (97, 501), (1999, 61), (61, 1300), (640, 427), (2400, 1600), (30, 30)]
"""Odd ones, far too large ones, and aspects of more than thirty."""


def encoder_of(base: Path, longest: int = 1024) -> Encoder:
    processors: Any = AutoProcessor
    family = base.name
    return Encoder(processors.from_pretrained(base), coordinates_of(family), longest)


def centred(size_wh: tuple[int, int]) -> Conversation:
    """A picture with one bright object, off its middle."""
    width, height = size_wh
    box = (float(width // 5), float(height // 4), float(width * 7 // 10), float(height * 9 // 10))
    return fixed(sample("a", [("car", box)], size_wh), CLASSES, PromptStyle(), 200)


def seen(encoded: Tensors, encoder: Encoder) -> NDArray[np.float32]:
    """The picture that the model gets, put together again from its patches: (H, W)."""
    _, rows, columns = encoded["image_grid_thw"][0].tolist()
    merge = encoder.processor.image_processor.merge_size
    patch = encoder.patch
    blocks = encoded["pixel_values"].reshape(rows // merge, columns // merge, merge, merge, 3, -1, patch, patch)
    whole = blocks[:, :, :, :, 0, 0].permute(0, 2, 4, 1, 3, 5).reshape(rows * patch, columns * patch)
    return whole.numpy()


def bright(pixels: NDArray[np.float32]) -> tuple[float, float, float, float]:
    """The box of the object on it, by the half-way level."""
    object_ = pixels > (pixels.max() + pixels.min()) / 2
    rows, columns = np.flatnonzero(object_.mean(1) > 0.25), np.flatnonzero(object_.mean(0) > 0.25)
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def error_of(said: str, encoded: Tensors, encoder: Encoder) -> float:
    """By how many pixels of the model's input a target misses the object there."""
    pixels = seen(encoded, encoder)
    (one,) = parse(said).detections
    assert one.box is not None
    full = encoder.coordinates.full_scale
    factors = (pixels.shape[1] / full, pixels.shape[0] / full) * 2 if full else (1.0,) * 4
    return max(abs(value * factor - edge) for value, factor, edge in zip(one.box, factors, bright(pixels), strict=True))


def said_in(encoded: Tensors, encoder: Encoder) -> str:
    labels = encoded["labels"]
    text: str = encoder.processor.tokenizer.decode(labels[labels != IGNORED], skip_special_tokens=True)
    return text


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size_wh", SIZES, ids=str)
@pytest.mark.parametrize("longest", [1024, 300])
def test_targets_lie_on_the_object_in_what_the_model_sees(
    bases: dict[str, Path], family: str, size_wh: tuple[int, int], longest: int
) -> None:
    encoder = encoder_of(bases[family], longest)
    encoded = encoder.encode(centred(size_wh))
    # one pixel of rounding in the target, one of the resize's soft edge; thousandths are coarser on long sides
    assert error_of(said_in(encoded, encoder), encoded, encoder) <= 2


@pytest.mark.parametrize("family", FAMILIES)
def test_targets_that_do_not_follow_the_resize_are_caught(bases: dict[str, Path], family: str) -> None:
    """The original's mistake: pixels of the picture as it was, whatever the processor made of it."""
    encoder = encoder_of(bases[family])
    wrong = Encoder(encoder.processor, _Unscaled(encoder.coordinates.family, encoder.coordinates.full_scale), 1024)
    misses = []
    for size_wh in [(333, 100), (640, 427), (2400, 1600)]:
        encoded = wrong.encode(centred(size_wh))
        misses.append(error_of(said_in(encoded, encoder), encoded, encoder))
    assert min(misses) > 10, misses


class _Unscaled(Coordinates):
    def from_picture(self, values: Any, picture_wh: tuple[int, int], input_wh: tuple[int, int]) -> Any:
        return values


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_answer_and_its_end_count(bases: dict[str, Path], family: str) -> None:
    encoder = encoder_of(bases[family])
    conversation = centred((120, 90))
    encoded = encoder.encode(conversation)
    counted = encoded["labels"] != IGNORED
    tokenizer = encoder.processor.tokenizer
    wh = input_wh(encoded["image_grid_thw"][0].tolist(), encoder.patch)
    assert tokenizer.decode(encoded["labels"][counted]) == encoder.target(conversation, wh) + "<|im_end|>"
    begin = int(counted.nonzero()[0])
    assert counted[begin:].all() and (encoded["input_ids"][counted] == encoded["labels"][counted]).all()
    # what stands before is to the last token what the model is asked in service
    asked = encoder.processor(
        text=[encoder.question(conversation.asked)], images=[encoder.picture(conversation)], return_tensors="pt"
    )
    assert (asked["input_ids"][0] == encoded["input_ids"][:begin]).all()
    assert torch.equal(asked["pixel_values"], encoded["pixel_values"])


def test_points_are_written_where_points_are_asked_for(base: Path) -> None:
    encoder = encoder_of(base)
    boxes = centred((100, 100))
    points = Conversation(boxes.sample, boxes.asked, "point", boxes.answer)
    (one,) = parse(encoder.target(points, (196, 196))).detections
    x, y = boxes.answer[0].point
    assert one.box is None and one.point == (round(x * 1.96), round(y * 1.96))


def test_a_class_that_is_named_like_a_special_token_ends_no_answer(base: Path) -> None:
    encoder = encoder_of(base)
    conversation = centred((100, 100))
    objects = tuple(Labelled("<|im_end|>", one.box, one.point) for one in conversation.answer)
    named = Conversation(conversation.sample, conversation.asked, "bbox", objects)
    encoded = encoder.encode(named)
    assert (encoded["input_ids"][encoded["labels"] != IGNORED] == encoder.processor.tokenizer.eos_token_id).sum() == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_gives_each_conversation_its_own_loss(bases: dict[str, Path], family: str) -> None:
    from transformers import AutoModelForImageTextToText

    encoder = encoder_of(bases[family])
    model: Any = AutoModelForImageTextToText.from_pretrained(bases[family])
    model.eval()
    conversations = [centred((120, 90)), fixed(sample("b", [], (60, 200)), CLASSES, PromptStyle(), 200)]
    pad = encoder.processor.tokenizer.pad_token_id
    with torch.no_grad():
        alone, tokens = [], []
        for one in conversations:
            inputs = collate([encoder.encode(one)], pad)
            tokens.append(int((inputs["labels"] != IGNORED).sum()))
            alone.append(float(model(**inputs).loss) * tokens[-1])
        together = float(model(**collate([encoder.encode(one) for one in conversations], pad)).loss) * sum(tokens)
    assert together == pytest.approx(sum(alone), rel=1e-4)


def test_answer_and_parse_agree_on_the_empty_answer() -> None:
    assert answer([], "bbox") == "[]" and parse("[]").complete
    assert parse(answer([Detected("car", (1.0, 2.0, 3.0, 4.0))], "bbox")).detections[0].box == (1, 2, 3, 4)
