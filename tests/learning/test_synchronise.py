"""Examples are brought up to date with a project while its webhooks go on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from label_studio_sdk.core.api_error import ApiError

from label_config.reader import read_cached
from tator_ml.learning.examples import Examples, revision
from tator_sdk.annotations import addresses_of, labelled_boxes
from tator_sdk.settings import Settings
from tests.learning.material import CONFIG, rectangle
from training.clip import dataset
from training.job import LocalJob

PROJECT, INTERFACE = 3, read_cached(CONFIG)


def annotation(number: int, label: str = "Car", minute: int = 0) -> dict[str, Any]:
    return {
        "id": number, "result": [rectangle("a", label)], "was_cancelled": False,
        "updated_at": f"2026-11-22T19:{minute:02d}:00.000000Z",
    }  # fmt: skip


def put(examples: Examples, one: dict[str, Any]) -> None:
    """As a webhook does."""
    addresses = addresses_of(INTERFACE, {"image": "/data/a.png"})
    updated = revision(one["updated_at"], INTERFACE, addresses)
    examples.put(PROJECT, one["id"], one["id"], updated, labelled_boxes(one["result"], INTERFACE), addresses)


@pytest.fixture
def examples(tmp_path: Path) -> Iterator[Examples]:
    made = Examples(tmp_path / "e.sqlite")
    yield made
    made.close()


def read(
    monkeypatch: pytest.MonkeyPatch, examples: Examples, home: Path, listed: list[dict[str, Any]],
    there: Collection[int] = (), meanwhile: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Synchronise with a project whose pages have these annotations, though others may be ``there``."""

    def get(id: int) -> Any:
        if id not in there:
            raise ApiError(status_code=404, body={})
        return SimpleNamespace(was_cancelled=False)

    def tasks(*_: object) -> Iterator[Any]:
        meanwhile()
        for one in listed:
            yield SimpleNamespace(id=one["id"], data={"image": "/data/a.png"}, annotations=[one])

    project = SimpleNamespace(label_config=CONFIG, num_tasks_with_annotations=len(listed))
    studio = SimpleNamespace(projects=SimpleNamespace(get=lambda _: project), annotations=SimpleNamespace(get=get))
    monkeypatch.setattr(dataset, "open_studio", lambda _: studio)
    monkeypatch.setattr(dataset, "labelled_tasks", tasks)
    settings = Settings(home=home, yield_to_clicks=False)
    dataset.synchronise(PROJECT, settings, examples, LocalJob(settings, "clip-3-here"))


def test_a_newer_state_stays_and_what_was_deleted_does_not_come_back(
    monkeypatch: pytest.MonkeyPatch, examples: Examples, tmp_path: Path
) -> None:
    for number in (1, 2):
        put(examples, annotation(number))

    def meanwhile() -> None:
        put(examples, annotation(1, "Van", minute=9))
        examples.delete(PROJECT, [2])

    listed = [annotation(1, "Bus", minute=5), annotation(2, minute=5), annotation(3)]
    read(monkeypatch, examples, tmp_path, listed, meanwhile=meanwhile)
    assert {one.annotation: one.label for one in examples.of_project(PROJECT)} == {1: "Van", 3: "Car"}


def test_what_slipped_between_pages_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, examples: Examples, tmp_path: Path
) -> None:
    for number in (1, 2, 3):
        put(examples, annotation(number))
    read(monkeypatch, examples, tmp_path, [annotation(1)], there={2})
    assert sorted(examples.known(PROJECT)) == [1, 2]
