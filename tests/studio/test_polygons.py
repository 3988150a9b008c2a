"""Polygons and oriented boxes in a real Label Studio: from a click, and of a whole project, each exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from demo.labelled import LabelledProject, labelled_project, region
from demo.stack import DemoStack
from tator_sdk.bulk import open_bulk
from tator_sdk.cli import load_commands
from tator_sdk.requests import SegmentationBuild
from training.job import JobCancelled, LocalJob
from training.segmentation.build import build
from training.starter.scenes import CLASSES

pytestmark = [pytest.mark.studio, pytest.mark.timeout(300)]

SEEDS = range(9_830_000, 9_830_006)
NAMES = sorted(shape.capitalize() for shape in CLASSES)


@pytest.fixture(scope="module")
def project(stack: DemoStack) -> Iterator[LabelledProject]:
    with labelled_project(stack, "Outlines", SEEDS, str.capitalize, NAMES, annotated=True) as made:
        labels = "".join(f'<Label value="{name}"/>' for name in NAMES)
        about = made.studio.projects.get(made.number)
        config = str(about.label_config).replace("<RectangleLabels ", '<RectangleLabels model_oriented="true" ', 1)
        outlines = f'<PolygonLabels name="outline" toName="image">{labels}</PolygonLabels></View>'
        made.studio.projects.update(made.number, label_config=config.strip().removesuffix("</View>") + outlines)
        yield made


def predictions(project: LabelledProject, ending: str) -> list[Any]:
    found = project.studio.predictions.list(project=project.number)
    return [one for one in found if str(one.model_version).endswith(ending)]


def test_a_drawn_box_comes_back_turned(project: LabelledProject) -> None:
    turns = []
    for task in project.tasks[:4]:
        boxes = [region(box.label, box.xyxy, task.size_wh) for box in task.boxes]
        for drawn in boxes:
            (answered,) = project.ask(task, [drawn])["result"]
            assert answered["type"] == "rectanglelabels" and answered["id"] == drawn["id"]
            turns.append(answered["value"].get("rotation", 0))
    assert sum(0 < turn < 360 for turn in turns) >= len(turns) / 3, turns


def test_a_project_becomes_polygons_each_once(project: LabelledProject, stack: DemoStack, tmp_path: Path) -> None:
    settings = stack.settings
    request = SegmentationBuild(project=project.number, output=tmp_path / "outlines", push=True)

    def killed(done: int, total: int, what: str) -> None:
        if what == "pushing predictions":
            raise JobCancelled

    with pytest.raises(JobCancelled):
        build(request, settings, LocalJob(settings, request.build, killed))
    report = build(request, settings, LocalJob(settings, request.build))
    tasks, boxes = len(project.tasks), sum(len(task.boxes) for task in project.tasks)
    assert (report["pictures"], report["objects"]) == (tasks, boxes) and report["masks"] >= 0.9 * boxes
    assert report["pushed"] == tasks and report["already_there"] == 0
    pushed = predictions(project, request.build)
    assert Counter(one.task for one in pushed) == Counter(task.number for task in project.tasks)
    for one in pushed:
        assert all(item["type"] == "polygonlabels" and item["from_name"] == "outline" for item in one.result)
        points = np.concatenate([np.array(item["value"]["points"]) for item in one.result])
        assert points.min() >= 0 and points.max() <= 100
    assert (tmp_path / "outlines" / "train" / "_annotations.coco.json").is_file()
    assert len(list((tmp_path / "outlines").rglob("images/*.png"))) == tasks


def test_oriented_boxes_of_a_project_and_their_undo(
    project: LabelledProject, stack: DemoStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = stack.settings
    request = SegmentationBuild(project=project.number, output=tmp_path / "turned", oriented=True, push=True)
    report = build(request, settings, LocalJob(settings, request.build))
    pushed = predictions(project, request.build)
    assert report["pushed"] == len(pushed) == len(project.tasks)
    values = [item["value"] for one in pushed for item in one.result]
    assert all(item["type"] == "rectanglelabels" for one in pushed for item in one.result)
    assert sum(0 < value["rotation"] < 360 for value in values) >= len(values) / 3

    others = len(list(open_bulk(settings).predictions(project.number))) - len(pushed)
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    words = ["polygons", "undo", request.build, "--project", str(project.number), "--yes"]
    said = CliRunner().invoke(load_commands(), words, env={"COLUMNS": "200"})
    assert said.exit_code == 0 and f"{len(pushed)} of {request.build}" in said.output, said.output
    assert not predictions(project, request.build)
    assert len(list(open_bulk(settings).predictions(project.number))) == others
