"""A connected project of generated scenes with their true boxes: what benchmarks and end-to-end tests label with."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import httpx

from label_config.build import build
from tator_ml.running.processes import Report
from tator_sdk.auth import LabelStudioAuth
from tator_sdk.connect import Connection
from tator_sdk.geometry import Xyxy
from tator_sdk.settings import Settings
from tator_sdk.studio import open_studio, sentences
from training.starter.prompts import center_point
from training.starter.scenes import SceneSettings, draw_scene


class Site(Protocol):
    """What a project is made on, such as a :class:`demo.stack.DemoStack`."""

    @property
    def folder(self) -> Path:
        """A folder of pictures; others are made beside it, where Label Studio may serve them."""

    @property
    def settings(self) -> Settings:
        """With the address of Label Studio and its token."""


Connect = Callable[[Settings, int], object]
"""Connects a project, by its number, to Tator."""


def connect_here(settings: Settings, project: int) -> None:
    """Connect a project to the backend of this machine."""
    Connection(settings, project, settings.backend_url).run()


@dataclass(frozen=True)
class TrueBox:
    """An object of a scene: the name that the project gives its class, its box and a point well inside, in pixels."""

    label: str
    xyxy: Xyxy
    point: tuple[float, float]


@dataclass(frozen=True)
class LabelledTask:
    """A task with what its picture shows; ``image`` is where Label Studio serves that."""

    number: int
    image: str
    boxes: tuple[TrueBox, ...]
    size_wh: tuple[int, int]

    def result(self) -> list[dict[str, Any]]:
        """The true boxes as regions of the box template."""
        return [region(box.label, box.xyxy, self.size_wh) for box in self.boxes]


@dataclass(frozen=True)
class LabelledProject:
    """A project of scenes.

    Attributes:
        number: of the project in Label Studio; ``backend`` that of its ML backend.
        tasks: in the order of their seeds.
        studio: client of the SDK; ``web`` is signed in to Label Studio too, for what the SDK does not have.
    """

    number: int
    backend: int
    tasks: tuple[LabelledTask, ...]
    studio: Any
    web: httpx.Client

    def annotate(self, tasks: Sequence[LabelledTask]) -> list[int]:
        """Submit the true boxes of tasks, one request each as a person would; returns the annotations' numbers."""
        return [self.studio.annotations.create(task.number, result=task.result()).id for task in tasks]

    def ask(self, task: LabelledTask, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Send prompts of the editor through Label Studio; returns the answer's first entry."""
        answer = self.web.post(
            f"/api/ml/{self.backend}/interactive-annotating",
            json={"task": task.number, "context": {"result": list(items)}},
        )
        answer.raise_for_status()
        return dict(answer.json().get("data") or {})

    def shown_version(self) -> str:
        """The backend's model version as Label Studio shows it."""
        rows = self.studio.ml.list(project=self.number)
        return str(next(row.model_version for row in rows if row.id == self.backend))


def keypoint(label: str, point: tuple[float, float], size_wh: tuple[int, int]) -> dict[str, Any]:
    """A click as the editor sends it."""
    width, height = size_wh
    value = {"x": 100 * point[0] / width, "y": 100 * point[1] / height, "width": 0.26, "keypointlabels": [label]}
    return {
        "id": secrets.token_urlsafe(8), "from_name": "point", "to_name": "image", "type": "keypointlabels",
        "origin": "manual", "original_width": width, "original_height": height, "image_rotation": 0,
        "value": value, "is_positive": True,
    }  # fmt: skip


def region(label: str, xyxy: Xyxy, size_wh: tuple[int, int], control: str = "box") -> dict[str, Any]:
    """A rectangle as the editor makes it."""
    width, height = size_wh
    x0, y0, x1, y1 = xyxy
    value = {
        "x": 100 * x0 / width, "y": 100 * y0 / height,
        "width": 100 * (x1 - x0) / width, "height": 100 * (y1 - y0) / height,
        "rotation": 0, "rectanglelabels": [label],
    }  # fmt: skip
    return {
        "id": secrets.token_urlsafe(8), "from_name": control, "to_name": "image", "type": "rectanglelabels",
        "origin": "manual", "original_width": width, "original_height": height, "image_rotation": 0, "value": value,
    }  # fmt: skip


@contextmanager
def labelled_project(
    stack: Site,
    title: str,
    seeds: range,
    name_of: Callable[[str], str],
    classes: Sequence[str],
    scenes: SceneSettings | None = None,
    annotated: bool = False,
    report: Report = lambda said: None,
    connect: Connect = connect_here,
) -> Iterator[LabelledProject]:
    """Make the project, connect it, and delete it in the end.

    Args:
        stack: the running servers.
        title: of the project.
        seeds: one scene each.
        name_of: a shape's class in this project.
        classes: all classes, in order.
        scenes: how they are drawn.
        annotated: import the true boxes as annotations as well (imports fire no annotation webhooks).
        report: is told what happens.
        connect: connects it.
    """
    folder = stack.folder.parent / title.lower().replace(" ", "-")
    truth = draw_pictures(folder, seeds, scenes or SceneSettings(), name_of)
    report(f"{len(truth)} pictures drawn")
    settings = stack.settings
    studio: Any = open_studio(settings)
    with sentences(settings.label_studio_url):
        project = studio.projects.create(title=title, label_config=build("boxes", list(classes), None))
        try:
            studio.import_storage.local.create(project=project.id, path=str(folder), title="scenes", use_blob_urls=True)
            tasks: list[LabelledTask] = []
            names = sorted(truth)
            for first in range(0, len(names), 250):
                part = names[first : first + 250]
                made = [_task(folder, name, truth[name], annotated) for name in part]
                answer = studio.projects.import_tasks(id=project.id, request=made, return_task_ids=True)
                for number, name in zip(answer.task_ids, part, strict=True):
                    tasks.append(LabelledTask(int(number), _address(folder, name), truth[name][0], truth[name][1]))
                report(f"{len(tasks)} tasks imported")
            connect(settings, project.id)
            rows = studio.ml.list(project=project.id)
            token = settings.label_studio_api_key
            auth = LabelStudioAuth(settings.label_studio_url, token.get_secret_value() if token else "")
            with httpx.Client(base_url=settings.label_studio_url, auth=auth, timeout=60) as web:
                yield LabelledProject(int(project.id), int(rows[0].id), tuple(tasks), studio, web)
        finally:
            studio.projects.delete(project.id)


Truth = tuple[tuple[TrueBox, ...], tuple[int, int]]


def draw_pictures(folder: Path, seeds: range, scenes: SceneSettings, name_of: Callable[[str], str]) -> dict[str, Truth]:
    """Draw scenes as PNG files; returns boxes and size of each by file name. Scenes without objects are left out."""
    folder.mkdir(parents=True, exist_ok=True)

    def drawn(seed: int) -> tuple[str, Truth] | None:
        scene = draw_scene(seed, scenes)
        if not scene.objects:
            return None
        name = f"{seed}.png"
        cv2.imwrite(str(folder / name), scene.image[..., ::-1])
        boxes = []
        for index, one in enumerate(scene.objects):
            x0, y0, x1, y1 = (float(edge) for edge in one.xyxy)
            boxes.append(TrueBox(name_of(one.shape), (x0, y0, x1, y1), center_point(scene.mask(index))))
        return name, (tuple(boxes), (scene.image.shape[1], scene.image.shape[0]))

    with ThreadPoolExecutor(2) as pool:
        return dict(one for one in pool.map(drawn, seeds) if one is not None)


def _address(folder: Path, name: str) -> str:
    return f"/data/local-files/?d={folder.name}/{name}"


def _task(folder: Path, name: str, truth: Truth, annotated: bool) -> dict[str, Any]:
    task: dict[str, Any] = {"data": {"image": _address(folder, name)}}
    if annotated:
        boxes, size_wh = truth
        task["annotations"] = [{"result": [region(box.label, box.xyxy, size_wh) for box in boxes]}]
    return task
