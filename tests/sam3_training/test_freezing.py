"""Which weights learn, at which rate, and which decay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Sam3Model

from tests.sam3_training.material import request
from training.sam3.forward import Asked, How, forward
from training.sam3.freezing import Parts, freeze, groups, rate_of, set_training


@pytest.fixture
def model(base: Path) -> Any:
    return Sam3Model.from_pretrained(base)


def learned(model: Any, parts: Parts) -> set[str]:
    freeze(model, parts)
    return {name for name, one in model.named_parameters() if one.requires_grad}


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("exemplars", [False, True])
def test_what_learns_is_exactly_what_has_a_gradient(model: Any, masks: bool, exemplars: bool) -> None:
    """Else several processes would wait for gradients that never come, or something would stand still by mistake."""
    tokens = torch.randint(0, 100, (2, 32))
    boxes = torch.full((2, 1, 4), 0.4) if exemplars else None
    asked = Asked(torch.randn(1, 3, 56, 56), tokens, torch.ones_like(tokens), torch.tensor([0, 0]), boxes)
    answers, _ = forward(model, asked, How(masks=masks))
    total = answers.logits.sum() + answers.boxes.sum() + (answers.presence.sum() if answers.presence is not None else 0)
    (total + (answers.masks.mean() if answers.masks is not None else 0)).backward()
    reached = {name for name, one in model.named_parameters() if one.grad is not None}
    assert reached == learned(model, Parts(masks, exemplars, vision=True, text=True))


def test_frozen_parts(model: Any) -> None:
    whole = learned(model, Parts(True, False, True, True))
    boxes = learned(model, Parts(False, False, True, True))
    gone = whole - boxes
    assert {name.split(".")[0] for name in gone} == {"mask_decoder", "vision_encoder"}
    levels = {name.split(".")[3] for name in gone if name.startswith("vision_encoder")}
    assert levels == {"0", "1"} and not any("backbone" in name for name in gone)
    still = learned(model, Parts(False, False, False, False))
    assert {name for name in still if name.startswith("vision_encoder")} == {
        f"vision_encoder.neck.fpn_layers.2.{part}.{kind}" for part in ("proj1", "proj2") for kind in ("weight", "bias")
    }
    assert not any(name.startswith("text_encoder.") for name in still) and "text_projection.weight" in still


def test_encoders_that_stay_answer_as_in_service(model: Any) -> None:
    set_training(model, Parts(False, False, False, False))
    assert model.detr_decoder.training and not model.mask_decoder.training
    assert not model.text_encoder.training and not model.vision_encoder.backbone.layers[0].training


def test_rates_fall_from_block_to_block_and_only_matrices_decay(model: Any) -> None:
    asked = request(learning_rate=1.0, vision_rate=0.5, text_rate=0.25, layer_decay=0.9, weight_decay=0.1)
    tower = "vision_encoder.backbone."
    assert rate_of(f"{tower}layers.31.mlp.fc1.weight", asked, 32) == 0.5
    assert rate_of(f"{tower}layers.30.mlp.fc1.weight", asked, 32) == pytest.approx(0.45)
    assert rate_of(f"{tower}layers.0.mlp.fc1.weight", asked, 32) == pytest.approx(0.5 * 0.9**31)
    assert rate_of(f"{tower}embeddings.patch_embeddings.projection.weight", asked, 32) == pytest.approx(0.5 * 0.9**32)
    assert rate_of(f"{tower}embeddings.position_embeddings", asked, 32) == 0.5
    assert rate_of("vision_encoder.neck.fpn_layers.2.proj1.weight", asked, 32) == 0.5
    assert rate_of("text_projection.weight", asked, 32) == rate_of("text_encoder.x", asked, 32) == 0.25
    assert rate_of("detr_decoder.box_head.layer1.weight", asked, 32) == 1.0
    freeze(model, Parts(False, False, True, True))
    made = groups(model.named_parameters(), asked, 2)
    assert sum(len(group["params"]) for group in made) == sum(one.requires_grad for one in model.parameters())
    for group in made:
        assert {one.ndim > 1 for one in group["params"]} == {group["weight_decay"] == 0.1}
