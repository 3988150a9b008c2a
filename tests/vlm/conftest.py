"""Tiny models of both families, written once a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from tator_ml.vlm.prompts import Composed, messages
from training.qwen.tiny import FAMILIES, Family, Shape, save_tiny

WORDS = ['[{"bbox_2d": [', '], "label": "car"}, {"bbox_2d": [', '], "label": "bus"}]', "Find the cars."]
"""What the tokenizer spells in few tokens."""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    """Folders by family, in the published layout; they write nonsense."""
    root = tmp_path_factory.mktemp("tiny")
    shape = Shape(layers=3, max_side=112)
    return {family: save_tiny(root / family, family, shape, WORDS) for family in FAMILIES}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Layers this small are no work for several threads: beside other tests these would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def teach(folder: Path, saved: Path, answers: dict[str, str], picture: NDArray[np.uint8], steps: int = 150) -> Path:
    """Train a tiny model until it gives its answer to each question about a picture; some seconds.

    Args:
        folder: of the model.
        saved: where the taught one is written.
        answers: by the user message.
        picture: (H, W, 3).
        steps: at most.
    """
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    processor: Any = AutoProcessor.from_pretrained(folder)
    batches = []
    for user, said in answers.items():
        asked = messages(Composed("", user, None))
        begin = processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        count = processor(text=[begin], images=[Image.fromarray(picture)])["input_ids"][0]
        whole = processor(text=[f"{begin}{said}<|im_end|>"], images=[Image.fromarray(picture)], return_tensors="pt")
        labels = whole["input_ids"].clone()
        labels[:, : len(count)] = -100
        batches.append({**whole, "labels": labels})
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(steps):
        losses = [model(**batch).loss for batch in batches]
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
        if max(float(loss.detach()) for loss in losses) < 0.003:
            break
    model.save_pretrained(saved)
    processor.save_pretrained(saved)
    return saved
