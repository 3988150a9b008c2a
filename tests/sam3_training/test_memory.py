"""The estimate of memory is near what a step really keeps, and what does not fit is refused before it starts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Sam3Config, Sam3Model

from tests.sam3_training.material import SHAPE, WORDS, request
from training.sam3.forward import Asked, How, forward
from training.sam3.freezing import Parts, freeze
from training.sam3.memory import TooLarge, check, estimate, fitting, in_gb
from training.sam3.tiny import Shape, make_model, make_tokenizer

CPU = torch.device("cpu")


def config_of(shape: Shape) -> Any:
    return make_model(make_tokenizer(list(WORDS), 400), shape).config.detector_config


def kept(config: Any, batch: int, questions: int, how: How) -> int:
    """Bytes that a forward pass really keeps for the backward pass."""
    model = Sam3Model(config)
    freeze(model, Parts(how.masks, False, not how.still_vision, True))
    side = config.vision_config.image_size
    tokens = torch.zeros(questions * batch, 32, dtype=torch.long)
    asked = Asked(
        torch.randn(batch, 3, side, side), tokens, torch.ones_like(tokens), torch.arange(batch).repeat(questions)
    )
    own = {one.untyped_storage().data_ptr() for one in model.parameters()}
    found: dict[int, int] = {}

    def keep(one: torch.Tensor) -> torch.Tensor:
        if one.untyped_storage().data_ptr() not in own:
            found[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        answers = forward(model, asked, how)
    assert answers[0].logits.requires_grad
    return sum(found.values())


@pytest.mark.parametrize(
    ("shape", "batch", "questions", "changes", "masks"),
    [
        (SHAPE, 2, 3, {}, False),
        (SHAPE, 2, 3, {"gradient_checkpointing": "on"}, False),
        (SHAPE, 1, 4, {"gradient_checkpointing": "off"}, True),
        (Shape(side=168, vision_hidden=96, vision_layers=4, hidden=64, layers=3, queries=30), 1, 4, {}, False),
        (Shape(side=168, vision_hidden=96, hidden=32, queries=12), 2, 2, {"freeze_vision": True}, False),
    ],
)
def test_it_is_within_a_factor_of_two_of_what_is_kept(
    shape: Shape, batch: int, questions: int, changes: dict[str, Any], masks: bool
) -> None:
    config = config_of(shape)
    asked = request(batch=batch, most_questions=questions, **changes)
    found = estimate(config, asked, masks, half=False)
    how = How(masks, True, found.checkpointing, still_vision=asked.freeze_vision)
    real = kept(config, batch, questions, how)
    # what is computed again comes on top of what is kept
    again = kept(config, batch, questions, How(masks, True)) // 2 if found.checkpointing else 0
    assert real / 2 <= found.activations <= 2 * real + again


def test_weights_gradients_and_moments_are_counted() -> None:
    config = config_of(SHAPE)
    model = Sam3Model(config)
    whole = sum(one.numel() for one in model.parameters())
    freeze(model, Parts(False, False, True, True))
    learned = sum(one.numel() for one in model.parameters() if one.requires_grad)
    found = estimate(config, request(), False, half=False)
    assert (found.weights, found.gradients, found.optimizer) == (4 * whole, 4 * learned, 8 * learned)
    lora = estimate(config, request(method="lora"), False, half=False)
    assert 0 < lora.gradients < found.gradients / 4 and lora.weights == found.weights
    assert estimate(config, request(), True, half=False).checkpointing and not found.checkpointing


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    found = estimate(config_of(SHAPE), request(), False, half=False)
    check(found, request(), found.total, "cpu")
    with pytest.raises(TooLarge) as refused:
        check(found, request(), found.total - 1, "cuda:0")
    said = str(refused.value)
    assert all(
        way in said
        for way in ("cuda:0 has", "--freeze-vision", "--method lora", "--batch 1", "--gradient-checkpointing")
    )
    with pytest.raises(TooLarge) as again:
        check(found, request(freeze_vision=True, batch=1), 0, "cpu")
    assert "--freeze-vision" not in str(again.value) and "--batch" not in str(again.value)


def test_short_memory_switches_checkpointing_on(monkeypatch: pytest.MonkeyPatch) -> None:
    config, asked = config_of(SHAPE), request(batch=4)
    whole = estimate(config, asked, False, half=False)
    monkeypatch.setattr("training.sam3.memory.free_bytes", lambda device: whole.total - 1)
    found = fitting(config, asked, False, False, CPU)
    assert found.checkpointing and found.total < whole.total
    with pytest.raises(TooLarge):
        fitting(config, request(batch=4, gradient_checkpointing="off"), False, False, CPU)


def test_figures_for_people() -> None:
    assert in_gb(3 * 2**30) == "3.0 GB" and in_gb(20 * 2**20) == "20 MB"


def test_the_published_size_is_sane() -> None:
    """0.84 billion weights: in bf16, boxes alone, one picture with one phrase."""
    found = estimate(Sam3Config(), request(batch=1, most_questions=1), False, half=True)
    assert 0.8e9 < found.weights / 6 < 0.9e9
    assert 12 * 2**30 < found.total < 40 * 2**30
