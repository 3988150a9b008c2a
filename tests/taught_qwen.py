"""A tiny Qwen-VL that knows a few pictures by heart: trained until it writes their answers word for word.

For tests of everything around a model that really answers: it loads, is prompted and writes as a published one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from tator_ml.vlm.coordinates import coordinates_of
from tator_ml.vlm.prompts import PromptStyle
from training.qwen.collate import IGNORED, Encoder, collate
from training.qwen.conversations import Conversation
from training.qwen.tiny import Family, Shape, save_tiny

MOST_STEPS = 1500
STYLE = PromptStyle(system_prompt="JSON only.", template="Find in this {image_type}: {items}. {extra_context}")
"""Short, so that lessons are few tokens."""


def teach(
    folder: Path, lessons: Sequence[Conversation], family: Family = "qwen2_5_vl", shape: Shape | None = None
) -> Path:
    """Write a model that answers each lesson's question as the lesson does.

    Args:
        folder: where to.
        lessons: questions about pictures with their answers.
        family: of the model.
        shape: its size.
    """
    words = [
        text for one in lessons for text in (one.asked.system, one.asked.user, *(each.label for each in one.answer))
    ]
    save_tiny(folder, family, shape, words, seed=1)
    model: Any = AutoModelForImageTextToText.from_pretrained(folder)
    model.model.visual.requires_grad_(False)  # what it makes of a few pictures is told apart as it is: half the time
    processor: Any = AutoProcessor.from_pretrained(folder)  # type: ignore[no-untyped-call]
    encoder = Encoder(processor, coordinates_of(family), 1024)
    batch = collate([encoder.encode(one) for one in lessons], processor.tokenizer.pad_token_id)
    labels = batch.pop("labels")[:, 1:]
    asked = labels != IGNORED
    columns = asked.any(0).nonzero()[:, 0]  # no others are answers' in any lesson: what is said there does not count
    wanted = labels[:, columns][asked[:, columns]]
    with torch.no_grad():  # it stays as it is, so it sees the same each time
        seen = model.model.get_image_features(batch.pop("pixel_values"), batch["image_grid_thw"], return_dict=True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=6e-3, betas=(0.9, 0.99), weight_decay=0.0)
    warm_up = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / 10) * 0.998**step)
    model.train()
    for _ in range(MOST_STEPS):
        logits = model(**batch, mm_encoder_outputs={"image": copy(seen)}, logits_to_keep=columns).logits
        said = logits[asked[:, columns]]
        loss = torch.nn.functional.cross_entropy(said, wanted)
        if float(loss.detach()) < 0.05 and bool((said.argmax(-1) == wanted).all()):
            break  # then writing greedily is the same as being told
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        warm_up.step()
    else:
        raise AssertionError(f"not learnt in {MOST_STEPS} steps: loss {float(loss.detach()):.3f}")
    model.eval().save_pretrained(folder)
    return folder
