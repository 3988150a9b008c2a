"""Tiny models of both families, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tator_ml.vlm.prompts import PromptStyle, compose
from training.qwen.tiny import FAMILIES, save_tiny

# The words of the prompts in few tokens: a tenth of the time.
WORDS = [
    text
    for output in ("bbox", "point")
    for asked in [compose("", ("car", "bus"), PromptStyle(), output)]
    for text in (asked.system, asked.user)
] * 3


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny models are slower in several threads, and the same to the last bit in one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each family."""
    folder = tmp_path_factory.mktemp("bases")
    return {family: save_tiny(folder / family, family, words=WORDS) for family in FAMILIES}


@pytest.fixture(scope="session")
def base(bases: dict[str, Path]) -> Path:
    return bases["qwen2_5_vl"]
