"""The parts of the model, run one by one, answer as the whole does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.ops import box_convert
from transformers import Sam3Model, Sam3Processor

from tests.sam3_training.material import WORDS
from training.sam3.forward import Asked, How, forward

PICTURE = torch.tensor([0, 1, 1])


@pytest.fixture(scope="module")
def model(base: Path) -> Any:
    return Sam3Model.from_pretrained(base).eval()


@pytest.fixture(scope="module")
def asked(base: Path) -> Asked:
    tokens = Sam3Processor.from_pretrained(base).tokenizer(
        list(WORDS), padding="max_length", max_length=32, return_tensors="pt"
    )
    pictures = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    return Asked(pictures, tokens.input_ids, tokens.attention_mask, PICTURE)


@pytest.mark.parametrize("exemplars", [False, True], ids=["phrases", "exemplars"])
@pytest.mark.parametrize("how", [How(masks=True), How(masks=True, many=True)], ids=["one", "one and many"])
@torch.no_grad()
def test_the_last_layer_is_the_models_own_answer(model: Any, asked: Asked, how: How, exemplars: bool) -> None:
    boxes = labels = None
    if exemplars:
        boxes = 0.2 + 0.5 * torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(2))
        labels = torch.tensor([[1, 0], [1, -10], [1, 1]])
    whole = Asked(asked.pixel_values, asked.input_ids, asked.attention_mask, PICTURE, boxes, labels)
    mine, many = forward(model, whole, how)
    theirs = model(
        pixel_values=asked.pixel_values[PICTURE], input_ids=asked.input_ids, attention_mask=asked.attention_mask,
        input_boxes=boxes, input_boxes_labels=labels,
    )  # fmt: skip
    assert mine.masks is not None and mine.presence is not None
    near = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(mine.logits[-1], theirs.pred_logits, **near)
    torch.testing.assert_close(box_convert(mine.boxes[-1], "cxcywh", "xyxy"), theirs.pred_boxes, **near)
    torch.testing.assert_close(mine.presence[-1], theirs.presence_logits[:, 0], **near)
    torch.testing.assert_close(mine.masks, theirs.pred_masks, **near)
    torch.testing.assert_close(mine.scores, theirs.pred_logits.sigmoid() * theirs.presence_logits.sigmoid(), **near)
    assert mine.logits.shape == (2, 3, 8) and mine.boxes.shape == (2, 3, 8, 4)
    if how.many:
        assert many is not None and many.logits.shape == mine.logits.shape
        assert not torch.allclose(many.logits[-1], mine.logits[-1])  # it does not look at its own kind
    else:
        assert many is None


def test_boxes_alone_never_run_what_makes_masks(model: Any, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any) -> None:
        raise AssertionError("ran")

    for part in (model.mask_decoder.instance_projection, model.mask_decoder.mask_embedder):
        monkeypatch.setattr(part, "forward", never)
    for level in (0, 1, 3):
        monkeypatch.setattr(model.vision_encoder.neck.fpn_layers[level], "forward", never)
    with torch.no_grad():
        assert forward(model, asked)[0].masks is None
        with pytest.raises(AssertionError):
            forward(model, asked, How(masks=True))


def test_checkpointing_changes_no_gradient(model: Any, asked: Asked) -> None:
    found = []
    for checkpointing in (False, True):
        model.zero_grad()
        answers, many = forward(model, asked, How(masks=True, many=True, checkpointing=checkpointing))
        assert answers.masks is not None and many is not None
        (answers.logits.sum() + answers.boxes.sum() + answers.masks.mean() + many.boxes.sum()).backward()
        found.append({name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, one in found[0].items():
        torch.testing.assert_close(one, found[1][name], msg=name)


def test_nothing_reaches_encoders_that_stay_as_they_are(model: Any, asked: Asked) -> None:
    model.zero_grad()
    answers, _ = forward(model, asked, How(still_vision=True, still_text=True))
    answers.logits.sum().backward()
    learned = {name for name, one in model.named_parameters() if one.grad is not None}
    assert "text_projection.weight" in learned and "vision_encoder.neck.fpn_layers.2.proj1.weight" in learned
    assert not [name for name in learned if name.startswith(("vision_encoder.backbone.", "text_encoder."))]
