"""Taking back what a job pushed."""

from __future__ import annotations

from typing import Any

import pytest

from tator_sdk.settings import Settings
from tests.fake_studio import FakeLabelStudio
from training.pushed import delete_predictions, predictions_of


def test_its_own_predictions_go_and_one_that_is_gone_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    studio = FakeLabelStudio()
    monkeypatch.setattr("tator_sdk.bulk.open_bulk", lambda _: studio.api())
    numbers = [studio.hold(task, "head-1/relabel-7-abcd") for task in (1, 2, 3)]
    other = studio.hold(4, "head-1/relabel-7-beef")
    assert predictions_of(Settings(), 7, "relabel-7-abcd") == numbers
    studio.delete(numbers[1])  # with its task, say
    answer = studio.answer

    def missing(method: str, url: str, content: bytes) -> tuple[int, Any]:
        if method == "DELETE" and f"/{numbers[1]}/" in url:
            return 404, {"detail": "No Prediction matches the given query."}
        return answer(method, url, content)

    monkeypatch.setattr(studio, "answer", missing)
    steps: list[tuple[int, int]] = []
    delete_predictions(Settings(), numbers, lambda *step: steps.append(step))
    assert [one.id for one in studio.held] == [other] and steps == [(0, 3), (1, 3), (2, 3), (3, 3)]
