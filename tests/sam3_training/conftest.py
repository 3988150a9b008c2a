"""A tiny SAM 3 for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sam3_training.material import SHAPE, WORDS
from training.sam3.tiny import save_tiny


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("sam3") / "base", SHAPE, WORDS)
