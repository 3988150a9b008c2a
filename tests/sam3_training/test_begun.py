"""One training at a time in a job's folder, and asking whether one runs ends none."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tator_sdk import files
from tator_sdk.errors import TatorError
from training.sam3 import begun
from training.sam3.begun import LOCK, alone, is_training


def test_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(begun, "PATIENCE_SECONDS", 0.1)
    assert not is_training(tmp_path)
    with alone(tmp_path):
        assert is_training(tmp_path)
        with pytest.raises(TatorError, match="does this training already"), alone(tmp_path):
            pass
    assert not is_training(tmp_path)


def test_a_training_that_starts_while_somebody_asks_waits_a_moment(tmp_path: Path) -> None:
    asking, ended = threading.Event(), threading.Event()

    def ask() -> None:
        with files.alone(tmp_path / LOCK, "asked"):
            asking.set()
            ended.wait(0.3)

    thread = threading.Thread(target=ask)
    thread.start()
    asking.wait()
    with alone(tmp_path):
        assert is_training(tmp_path)
    thread.join()


def test_asking_about_a_folder_that_is_not_there_makes_none(tmp_path: Path) -> None:
    assert not is_training(tmp_path / "none") and not list(tmp_path.iterdir())
