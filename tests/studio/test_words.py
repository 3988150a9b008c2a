"""Words through a real Label Studio: a model that knows these pictures by heart is asked in the field, for the next
picture, for a selection and for the whole project."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from demo.labelled import LabelledProject, LabelledTask, labelled_project
from demo.stack import DemoStack
from label_config.build import build
from tator_ml import jobs
from tator_ml.jobs import JobRecords, connect_redis
from tator_ml.jobs.lifecycle import read_fields
from tator_ml.jobs.owner import Owner
from tator_ml.learning.stores import project_choices
from tator_ml.vlm.prompts import compose
from tator_ml.vlm.registry import QwenRegistry, RunMetadata, qwen_registry
from tator_sdk.geometry import Xyxy, iou_xyxy
from tests.studio.test_head import until
from tests.taught_qwen import STYLE, teach
from training.cli import prelabel as prelabel_cli
from training.journal import lines_of
from training.prelabel.look import FOUND_FILE
from training.qwen.conversations import Conversation
from training.qwen.tiny import FAMILIES
from training.samples import Labelled, Sample
from training.starter.names import DISPLAY_NAMES, display_name
from training.starter.prompts import center_point
from training.starter.scenes import SceneSettings, draw_scene

pytestmark = [pytest.mark.studio, pytest.mark.timeout(600)]

SEEDS = range(9_960_000, 9_960_003)
POINTED = SEEDS[:2]  # what is asked for as points as well
SCENES = SceneSettings(size_wh=(640, 480), min_side=110, max_side=220, objects=(2, 3), camouflage=0.0)
CLASSES = list(DISPLAY_NAMES.values())


def lessons(words: str) -> list[Conversation]:
    """All objects of every scene, as boxes and of some as points, asked for by the same words."""
    made = []
    for seed in SEEDS:
        scene = draw_scene(seed, SCENES)
        objects = []
        for index, one in enumerate(scene.objects):
            x0, y0, x1, y1 = (float(edge) for edge in one.xyxy)
            point = center_point(scene.mask(index))
            objects.append(Labelled(display_name(one.shape), (x0, y0, x1, y1), (float(point[0]), float(point[1]))))
        height, width = scene.image.shape[:2]
        sample = Sample(str(seed), lambda image=scene.image: image, (width, height), tuple(objects))
        for output in ("bbox", "point") if seed in POINTED else ("bbox",):
            asked = compose(words, CLASSES, STYLE, output)  # type: ignore[arg-type]
            made.append(Conversation(sample, asked, output, sample.objects))  # type: ignore[arg-type]
    return made


def add_model(registry: QwenRegistry, folder: Path, family: str) -> str:
    """Take a whole model into the registry as a run; returns its id."""
    about = RunMetadata(
        id="", label=f"tiny {family}", system_prompt=STYLE.system_prompt, system_prompt_noise=0.0, dataset_context="",
        classes=tuple(CLASSES), model_id="none", use_qlora=False, max_image_dim=1024, max_detections_per_sample=200,
        created_at="", latest_checkpoint="model", source_dataset="scenes", method="whole", template=STYLE.template,
    )  # fmt: skip
    return registry.add(about, {}, lambda into: shutil.copytree(folder, into / "model") and None).id


@dataclass(frozen=True)
class Worded:
    """A project of scenes, and models that know them."""

    project: LabelledProject
    models: dict[str, str]
    registry: QwenRegistry

    def configure(self, options: str) -> None:
        """Set the prompt field's options."""
        config = build("all", CLASSES).replace('model_mode="bbox" model_max_results="8"', options)
        self.project.studio.projects.update(self.project.number, label_config=config)

    def ask(self, task: LabelledTask, words: str) -> dict[str, Any]:
        """Type into the prompt field; returns the answer's first entry."""
        item = {
            "id": secrets.token_urlsafe(8), "from_name": "prompt", "to_name": "image", "type": "textarea",
            "origin": "manual", "value": {"text": [words]},
        }  # fmt: skip
        return self.project.ask(task, [item])


@pytest.fixture(scope="module")
def worded(stack: DemoStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worded]:
    registry = qwen_registry(stack.settings)
    models = {}
    for family in FAMILIES:
        folder = teach(tmp_path_factory.mktemp("taught") / family, lessons(""), family)
        models[family] = add_model(registry, folder, family)
    with labelled_project(stack, "In words", SEEDS, DISPLAY_NAMES.__getitem__, CLASSES, SCENES) as made:
        project_choices(stack.settings).choose(made.number, assists=("refine",))
        registry.activate(made.number, models["qwen2_5_vl"], "person")
        yield Worded(made, models, registry)


def corners(value: dict[str, Any], size_wh: tuple[int, int]) -> Xyxy:
    if "points" in value:
        xs, ys = zip(*value["points"], strict=True)
        box = min(xs), min(ys), max(xs), max(ys)
    else:
        box = value["x"], value["y"], value["x"] + value["width"], value["y"] + value["height"]
    width, height = size_wh
    return box[0] * width / 100, box[1] * height / 100, box[2] * width / 100, box[3] * height / 100


def agreement(task: LabelledTask, result: Sequence[dict[str, Any]]) -> float:
    """Mean over a scene's objects of the best IoU with a region of the right label."""
    total = 0.0
    for truth in task.boxes:
        same = [one for one in result if one["value"].get(one["type"]) == [truth.label]]
        total += max((iou_xyxy(corners(one["value"], task.size_wh), truth.xyxy) for one in same), default=0.0)
    return total / len(task.boxes)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_becomes_labelled_regions_in_all_three_modes(worded: Worded, family: str) -> None:
    worded.registry.activate(worded.project.number, worded.models[family], "person")
    for mode, output, kind, least in (
        ("bbox", "box", "rectanglelabels", 0.9),
        ("bbox_sam", "polygon", "polygonlabels", 0.75),
        ("point", "box", "rectanglelabels", 0.7),
    ):
        worded.configure(f'model_mode="{mode}" model_output="{output}"')
        for task in worded.project.tasks[: len(POINTED)]:
            answer = worded.ask(task, "all")
            assert len(answer["result"]) == len(task.boxes), (mode, answer)
            assert {one["type"] for one in answer["result"]} == {kind}
            assert agreement(task, answer["result"]) > least, (mode, family)
            assert worded.models[family] in answer["model_version"], "the version names the model"
    worded.configure('model_max_results="1"')
    assert len(worded.ask(worded.project.tasks[0], "all")["result"]) == 1


def test_kept_words_label_a_selection_once(stack: DemoStack, worded: Worded) -> None:
    project = worded.project
    worded.registry.activate(project.number, worded.models["qwen2_5_vl"], "person")
    worded.configure('model_keep_prompt="true"')
    assert worded.ask(project.tasks[0], "all")["result"]
    assert project_choices(stack.settings).get(project.number).words is not None
    wanted = [task.number for task in project.tasks]

    def retrieve() -> list[Any]:
        address = f"/api/dm/actions?id=retrieve_tasks_predictions&project={project.number}"
        chosen = {"selectedItems": {"all": False, "included": wanted}}
        project.web.post(address, json=chosen).raise_for_status()
        return list(project.studio.predictions.list(project=project.number))

    try:
        held = retrieve()
        assert sorted(one.task for one in held) == wanted
        for task in project.tasks:
            (one,) = (one for one in held if one.task == task.number)
            assert agreement(task, one.result) > 0.9 and "/words-" in one.model_version
        again = retrieve()
        assert {one.id for one in again} == {one.id for one in held}, "nothing is doubled"
        worded.ask(project.tasks[0], "/forget")
        assert project_choices(stack.settings).get(project.number).words is None
    finally:
        for one in project.studio.predictions.list(project=project.number):
            project.studio.predictions.delete(one.id)


def tator(stack: DemoStack, monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    for name, value in stack.settings.environment().items():
        monkeypatch.setenv(name, value)
    app = typer.Typer()
    app.callback()(lambda: None)
    prelabel_cli.register(app)
    done = CliRunner().invoke(app, ["prelabel", "qwen", *words], env={"COLUMNS": "200"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_a_whole_project_by_the_verb_and_back(
    stack: DemoStack, worded: Worded, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, number = worded.project, str(worded.project.number)
    worded.registry.activate(project.number, worded.models["qwen3_vl"], "person")
    worded.configure('model_mode="bbox"')
    annotated = project.tasks[-1]
    mark = project.annotate([annotated])[0]
    try:
        assert "Nothing was pushed" in tator(stack, monkeypatch, "--project", number, "--dry-run", "--here")
        assert not list(project.studio.predictions.list(project=project.number))
        said = tator(stack, monkeypatch, "--project", number, "--mode", "bbox_sam")  # a worker lives: it takes the job
        held = {one.task: one for one in project.studio.predictions.list(project=project.number)}
        assert set(held) == {task.number for task in project.tasks[:-1]}, "nobody has labelled those"
        for task in project.tasks[:-1]:
            assert agreement(task, held[task.number].result) > 0.75
            assert held[task.number].model_version.startswith(worded.models["qwen3_vl"])
        job = said.split("--undo ")[-1].strip()
        assert f"{len(held)} of {job}" in tator(stack, monkeypatch, "--undo", job, "--yes")
        assert not list(project.studio.predictions.list(project=project.number))
        assert "nothing was deleted" in tator(stack, monkeypatch, "--undo", job, "--yes")
    finally:
        project.studio.annotations.delete(mark)


@pytest.mark.faults
def test_killed_in_the_middle_every_task_has_its_prediction_once(stack: DemoStack, worded: Worded) -> None:
    project = worded.project
    request = {"project": project.number, "labelled": True, "in_flight": 1}
    job = jobs.start(stack.settings, "prelabel", request, project=project.number, title="killed").id
    journal = stack.settings.home / "jobs" / job / FOUND_FILE
    with connect_redis(stack.settings) as connection:
        records = JobRecords(connection)
        while len(list(lines_of(journal))) < 1:
            assert not records.get(job).over, "it was too quick to be hit in the middle"
            time.sleep(0.005)
        os.kill(Owner.from_json(read_fields(connection, job)["owner"]).pid, signal.SIGKILL)
        until(lambda: records.get(job).over, 120, "another attempt ends it")
        ended = records.get(job)
    assert (ended.status, ended.attempt) == ("done", 2), ended.error
    asked = [line["task"] for _, line in lines_of(journal)]
    assert sorted(asked) == sorted(task.number for task in project.tasks), "each was asked about once"
    held = list(project.studio.predictions.list(project=project.number))
    assert sorted(one.task for one in held) == sorted(asked)
    for one in held:
        project.studio.predictions.delete(one.id)
