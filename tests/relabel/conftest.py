"""A Label Studio in memory, a head that reads boxes' places, and a project of three classes."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tator_ml.engine.crops import CropRecipe
from tator_ml.engine.head import Head
from tator_ml.engine.messages import EmbedAsk, Embedded
from tator_ml.learning.stores import head_registry
from tator_sdk.settings import Settings
from tests.fake_studio import FakeLabelStudio
from training.job import LocalJob

PROJECT = 7
CLASSES = ("Star", "Heart", "Moon")
SIZE_WH = (400, 100)
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">'
    '<Label value="Star"/><Label value="Heart"/><Label value="Moon"/><Label value="Comet"/></RectangleLabels>'
    '<RectangleLabels name="sky" toName="image"><Label value="Star"/></RectangleLabels></View>'
)


def picture(shade: int) -> str:
    stream = io.BytesIO()
    Image.new("RGB", SIZE_WH, (shade, 90, 90)).save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def place(truth: str, sureness: int) -> int:
    """Where a box lies that shows ``truth``, of which the head is 0..20 sure."""
    return 100 * CLASSES.index(truth) + 2 * sureness


class ReadsPlaces:
    """Embeds a box by where it lies: see ``place``."""

    version = "places-1"

    def __init__(self) -> None:
        self.asked = 0

    def embed(self, ask: EmbedAsk) -> Embedded:
        rows = []
        for item in ask.items:
            for x0, *_ in item.xyxy:
                self.asked += 1
                row = np.full(3, 1.0)
                row[int(x0) // 100] += (int(x0) % 100) / 10
                rows.append(row / np.linalg.norm(row))
        return Embedded(self.version, np.array(rows, np.float16))

    def encoder_version(self, name: str) -> str:
        return self.version


def head(threshold: float = 0.5) -> Head:
    return Head(
        CLASSES, 8 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32), 1.0, threshold, 0.0, "places-1",
        CropRecipe(), "toy", "toy",
    )  # fmt: skip


def region(name: str, label: str, truth: str, sureness: int, tag: str = "box", **more: Any) -> dict[str, Any]:
    width, height = SIZE_WH
    value = {"x": 100 * place(truth, sureness) / width, "y": 10, "width": 10, "height": 50, "rotation": 0}
    return {
        "id": name, "from_name": tag, "to_name": "image", "type": "rectanglelabels", "original_width": width,
        "original_height": height, "image_rotation": 0, "value": {**value, "rectanglelabels": [label], **more},
    }  # fmt: skip


@dataclass
class FakeStudio(FakeLabelStudio):
    """What relabel needs of Label Studio, in memory: the SDK's client for reading, the bulk endpoints for pushing."""

    config: str = CONFIG
    project: int = PROJECT
    annotated: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.projects = SimpleNamespace(get=self._project)
        self.tasks = SimpleNamespace(list=lambda **_: iter(self.annotated))

    def annotate(self, *results: list[dict[str, Any]], **more: Any) -> int:
        """A new task with these annotations; returns its number."""
        number = len(self.annotated) + 1
        annotations = [
            {"id": 10 * number + row, "result": result, "was_cancelled": False} for row, result in enumerate(results)
        ]
        data = more.get("data", {"image": picture(number)})
        self.annotated.append(SimpleNamespace(id=number, data=data, annotations=annotations))
        return number

    def _project(self, _: int) -> Any:
        return SimpleNamespace(
            label_config=self.config, num_tasks_with_annotations=len(self.annotated), model_version="Tator"
        )


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> FakeStudio:
    made = FakeStudio()
    monkeypatch.setattr("training.relabel.open_studio", lambda _: made)
    monkeypatch.setattr("tator_sdk.bulk.open_bulk", lambda _: made.api())
    monkeypatch.setattr("tator_sdk.in_flight.SETTLE_SECONDS", 0.0)
    return made


@pytest.fixture
def version(settings: Settings) -> str:
    """The version of the project's active head."""
    registry = head_registry(settings)
    entry = registry.add(head(), PROJECT, {})
    registry.activate(PROJECT, entry.version, "person")
    return entry.version


@pytest.fixture
def job(settings: Settings) -> LocalJob:
    return LocalJob(settings, "relabel-7-abcd")
