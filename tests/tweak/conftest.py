"""A Label Studio in memory with pictures of bright rectangles, and an engine that finds them."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from tator_ml.engine.engine import Engine
from tator_ml.learning.stores import image_store
from tator_sdk.push import Pushed
from tator_sdk.settings import Settings
from tests.wire.conftest import BrightSegmenter, ToyClassifier, scene_bytes
from training.job import LocalJob

PROJECT = 7
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="rect" toName="image">'
    '<Label value="Ball"/><Label value="Cup"/><Label value="Traffic light"/></RectangleLabels>'
    '<PolygonLabels name="poly" toName="image"><Label value="Ball"/></PolygonLabels></View>'
)
PICTURE = "data:image/png;base64," + base64.b64encode(scene_bytes()).decode()
TRUTH = {"x": 30.0, "y": 25.0, "width": 20.0, "height": 30.0}
LOOSE = {"x": 28.0, "y": 23.0, "width": 24.0, "height": 34.0}
LOOSER = {"x": 27.0, "y": 22.0, "width": 26.0, "height": 36.0}
SECOND = {"x": 60.0, "y": 60.0, "width": 30.0, "height": 30.0}
EMPTY = {"x": 2.0, "y": 80.0, "width": 10.0, "height": 10.0}


def box(name: str, label: str = "Ball", place: dict[str, float] = LOOSE, **more: Any) -> dict[str, Any]:
    return {
        "id": name, "from_name": "rect", "to_name": "image", "type": "rectanglelabels", "original_width": 640,
        "original_height": 480, "image_rotation": 0, "origin": "manual",
        "value": {**place, "rotation": 0, "rectanglelabels": [label]}, **more,
    }  # fmt: skip


POLYGON = {
    "id": "p", "from_name": "poly", "to_name": "image", "type": "polygonlabels", "original_width": 640,
    "original_height": 480, "value": {"points": [[1, 1], [9, 1], [9, 9]], "polygonlabels": ["Ball"]},
}  # fmt: skip


class Pager(list[Any]):
    """Tasks as the SDK's client pages through them."""

    @property
    def response(self) -> Any:
        return SimpleNamespace(total=len(self))


@dataclass
class FakeStudio:
    """What the SDK's client does for this job, in memory.

    Attributes:
        results: of annotations, by their number.
        drafts: annotations with unsaved changes.
        writes: numbers of annotations in the order in which they were written.
        before_write, after_write: called with the number; may raise, as a process that is killed there.
        pushed: predictions by task.
    """

    config: str = CONFIG
    tasks_: list[Any] = field(default_factory=list)
    results: dict[int, list[Any]] = field(default_factory=dict)
    drafts: set[int] = field(default_factory=set)
    views_: dict[str, tuple[int, list[int]]] = field(default_factory=dict)
    writes: list[int] = field(default_factory=list)
    pushed: dict[int, dict[str, Any]] = field(default_factory=dict)
    before_write: Callable[[int], None] = lambda number: None
    after_write: Callable[[int], None] = lambda number: None
    before_push: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.projects = SimpleNamespace(get=lambda _: SimpleNamespace(label_config=self.config, model_version="Tator"))
        self.tasks = SimpleNamespace(list=self._tasks)
        self.views = SimpleNamespace(get=self._view)
        self.annotations = SimpleNamespace(get=self._get, update=self._update)

    def annotate(self, *results: list[dict[str, Any]], **data: Any) -> int:
        """A new task with these annotations, numbered from 10 times the task on; returns its number."""
        number = len(self.tasks_) + 1
        for row, result in enumerate(results):
            self.results[10 * number + row] = copy.deepcopy(result)
        numbers = [10 * number + row for row in range(len(results))]
        self.tasks_.append((number, data or {"image": PICTURE}, numbers))
        return number

    def _tasks(self, project: int, view: int | None = None, query: str | None = None, **_: Any) -> Pager:
        assert project == PROJECT
        items = json.loads(query)["filters"]["items"] if query else []
        named = {item["value"] for item in items if item["filter"] == "filter:tasks:id"}
        shown = set(self.views_[str(view)][1]) if view else named
        return Pager(self._task(one) for one in self.tasks_ if not shown or one[0] in shown)

    def _task(self, task: tuple[int, dict[str, Any], list[int]]) -> Any:
        number, data, annotations = task
        rows = [
            {"id": one, "result": copy.deepcopy(self.results[one]), "was_cancelled": False, "updated_at": f"2026-{one}"}
            for one in annotations
            if one in self.results
        ]
        return SimpleNamespace(id=number, data=data, annotations=rows)

    def _view(self, name: str) -> Any:
        from label_studio_sdk.core.api_error import ApiError

        if name not in self.views_:
            raise ApiError(status_code=404, body="no")
        return SimpleNamespace(project=self.views_[name][0])

    def _get(self, id: int) -> Any:
        from label_studio_sdk.core.api_error import ApiError

        if id not in self.results:
            raise ApiError(status_code=404, body="no")
        return SimpleNamespace(result=json.loads(json.dumps(self.results[id])))

    def _update(self, id: int, result: list[Any]) -> None:
        self.before_write(id)
        self.results[id] = json.loads(json.dumps(result))
        self.drafts.discard(id)
        self.writes.append(id)
        self.after_write(id)

    def push(self, version: str, tasks: Sequence[int], prediction_of: Any, before: Any) -> Pushed:
        """As ``PredictionsOfVersion.push`` does, one by one."""
        there = len(set(tasks) & set(self.pushed))
        for done, task in enumerate(tasks):
            if task not in self.pushed:
                before(done)
                self.before_push()
                self.pushed[task] = prediction_of(task)
                assert self.pushed[task]["model_version"] == version
        return Pushed(len(tasks) - there, there, ())


@pytest.fixture
def settings(tmp_path: Any) -> Settings:
    return Settings(home=tmp_path / "home", label_studio_api_key="legacy", engine_patience_seconds=0.5)


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> FakeStudio:
    made = FakeStudio()
    for module in ("training.sweep", "tator_sdk.rewriting"):
        monkeypatch.setattr(f"{module}.open_studio", lambda _: made)
    monkeypatch.setattr("tator_sdk.rewriting.Annotations.drafted", lambda _, task: set(made.drafts))

    class Pushes:
        def __init__(self, settings: Settings, project: int, version: str) -> None:
            assert project == PROJECT
            self._version = version

        def push(self, tasks: Sequence[int], prediction_of: Any, before: Any) -> Pushed:
            return made.push(self._version, tasks, prediction_of, before)

    monkeypatch.setattr("training.sweep.PredictionsOfVersion", Pushes)
    return made


@dataclass
class Toy:
    """An engine in this process, and what a test turns."""

    engine: Engine
    segmenter: BrightSegmenter
    classifier: ToyClassifier


@pytest.fixture
def toy(settings: Settings) -> Iterator[Toy]:
    segmenter, classifier = BrightSegmenter(), ToyClassifier()
    engine = Engine(settings, image_store(settings), segmenter, classifier)
    yield Toy(engine, segmenter, classifier)
    engine.close()


@pytest.fixture
def job(settings: Settings) -> LocalJob:
    return LocalJob(settings, f"tweak-{PROJECT}-abcd")
