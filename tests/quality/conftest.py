"""A quality record over files of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tator_ml.quality.follow import QualityFollower
from tator_ml.quality.store import QualityStore
from tator_ml.suggestions import Suggestions
from tator_sdk.bulk import BulkApi
from tator_sdk.settings import Settings

from .hand_made import ANNOTATIONS, CONFIG, NAMES, PREDICTION, record_all


@dataclass
class Record:
    """What was suggested, and what became of it."""

    suggestions: Suggestions
    store: QualityStore
    follower: QualityFollower


def task_of(number: int) -> dict[str, Any]:
    return {"id": number, "data": {"image": f"/data/upload/7/{number}.png"}}


def studio_api(
    annotations: tuple[dict[str, Any], ...] = ANNOTATIONS,
    slipped: Collection[int] = (),
    meanwhile: Callable[[], None] = lambda: None,
) -> BulkApi:
    """A Label Studio that has the hand-made project.

    Args:
        annotations: of the project.
        slipped: tasks that no page has.
        meanwhile: happens after a page was read, before it arrives.
    """

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/api/predictions/90/":
            return httpx.Response(200, json=PREDICTION)
        if path == "/api/users":
            people = [
                {"id": number, "first_name": name, "last_name": "", "email": ""} for number, name in NAMES.items()
            ]
            return httpx.Response(200, json=people)
        if path == "/api/projects/7/":
            return httpx.Response(200, json={"label_config": CONFIG, "num_tasks_with_annotations": 7, "task_number": 8})
        if path.startswith("/api/annotations/"):
            found = [one for one in annotations if path == f"/api/annotations/{one['id']}/"]
            return httpx.Response(200, json=found[0]) if found else httpx.Response(404, json={})
        assert path == "/api/tasks"
        numbers = sorted({one["task"] for one in annotations})
        tasks = [
            {
                **task_of(number),
                "annotations": [one for one in annotations if one["task"] == number],
                "predictions": [PREDICTION] if number == 4 else [],
            }
            for number in numbers
            if number not in slipped
        ]
        meanwhile()
        return httpx.Response(200, json={"total": len(tasks), "tasks": tasks})

    return BulkApi("http://studio", transport=httpx.MockTransport(answer))


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Record]:
    """Everything of the hand-made project is suggested, nothing submitted."""
    suggestions, store = Suggestions(tmp_path / "s.sqlite"), QualityStore(tmp_path / "q.sqlite")
    record_all(suggestions, monkeypatch)
    monkeypatch.setattr("tator_ml.quality.follow.open_bulk", lambda _: studio_api())
    follower = QualityFollower(Settings(home=tmp_path), store, suggestions)
    yield Record(suggestions, store, follower)
    follower.close()
    suggestions.close()
