"""Training the starter segmenter: what fails beside it ends it."""

from __future__ import annotations

from typing import Any

import pytest

from training.starter import segmenter


@pytest.mark.timeout(20)
def test_a_batch_that_cannot_be_made_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(pack: Any, seed: int, step: int) -> Any:
        if step == 2:
            raise OSError("the pack of scenes is gone")
        return step

    monkeypatch.setattr(segmenter, "make_batch", make)
    made: list[Any] = []
    with pytest.raises(OSError, match="scenes is gone"):
        for batch in segmenter.batches(None, 0, 0, 5):  # type: ignore[arg-type]
            made.append(batch)
    assert made == [0, 1]
