"""Leftover prompts are taken out of what stands in Label Studio, and never out of what somebody works on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tator_ml.prompts.leftovers import Tidier, remove_leftovers
from tator_sdk.settings import Settings

from .fake_studio import FakeLabelStudio

TASK, NUMBER = 1, 7
POINT = {"id": "p", "type": "keypointlabels", "value": {"x": 1.5}}
BOX = {"id": "r", "type": "rectanglelabels", "value": {"x": 2.25}}


@pytest.fixture
def studio() -> FakeLabelStudio:
    rows = [{"id": NUMBER, "result": [POINT, BOX]}]
    return FakeLabelStudio(tasks={TASK: {"id": TASK, "annotations": rows}})


@pytest.fixture
def settings(studio: FakeLabelStudio, tmp_path: Path) -> Iterator[Settings]:
    with studio.served() as url:
        yield Settings(home=tmp_path, label_studio_url=url, label_studio_api_key="legacy")


def result_of(studio: FakeLabelStudio) -> Any:
    return studio.tasks[TASK]["annotations"][0]["result"]


def test_they_are_taken_out(studio: FakeLabelStudio, settings: Settings) -> None:
    remove_leftovers(settings, NUMBER, TASK, [POINT, BOX], [BOX])
    assert result_of(studio) == [BOX]


def test_unsaved_changes_are_left(studio: FakeLabelStudio, settings: Settings) -> None:
    studio.drafts.add(NUMBER)
    remove_leftovers(settings, NUMBER, TASK, [POINT, BOX], [BOX])
    assert result_of(studio) == [POINT, BOX] and studio.drafts == {NUMBER}


def test_a_newer_result_is_left(studio: FakeLabelStudio, settings: Settings) -> None:
    newer = [POINT, {**BOX, "value": {"x": 3.0}}]
    studio.tasks[TASK]["annotations"][0]["result"] = newer
    remove_leftovers(settings, NUMBER, TASK, [POINT, BOX], [BOX])
    assert result_of(studio) == newer


def test_one_that_is_gone_is_no_trouble(studio: FakeLabelStudio, settings: Settings) -> None:
    studio.tasks[TASK]["annotations"] = []
    remove_leftovers(settings, NUMBER, TASK, [POINT, BOX], [BOX])
    assert not studio.tasks[TASK]["annotations"]


def test_none_is_passed_over_however_many_come(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    seen: list[int] = []

    def remove(_: Settings, number: int, *__: object) -> None:
        seen.append(number)
        if number % 2:
            raise RuntimeError("the others are tidied all the same")

    monkeypatch.setattr("tator_ml.prompts.leftovers.remove_leftovers", remove)
    tidier = Tidier(settings)
    for number in range(100):
        tidier.tidy(number, TASK, [POINT], [])
    tidier.settle()
    tidier.close()
    assert seen == list(range(100))
