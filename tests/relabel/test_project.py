"""The queue of label errors in a real Label Studio: what it finds, how it is seen there, and that it can go again."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from demo.stack import DemoStack
from label_config.build import build
from tator_ml import jobs
from tator_ml.engine.head import Head
from tator_ml.engine.loading import STARTER_HEAD
from tator_ml.jobs import JobRecords, connect_redis
from tator_ml.jobs.lifecycle import read_fields
from tator_ml.jobs.owner import Owner
from tator_ml.learning.stores import head_registry
from tator_sdk.requests import Relabel
from tator_sdk.studio import open_studio
from tests.jobs.conftest import until
from training.cli import relabel as relabel_cli
from training.job import LocalJob
from training.relabel import relabel
from training.starter.names import DISPLAY_NAMES, display_name
from training.starter.scenes import SceneSettings, draw_scene

pytestmark = [pytest.mark.studio, pytest.mark.timeout(600)]

SCENES, FIRST_SEED, WRONG = 40, 9_950_000, 0.05
SETTINGS = SceneSettings(size_wh=(320, 240), min_side=40, max_side=120, objects=(4, 7), camouflage=0.1)


@dataclass(frozen=True)
class Labelled:
    """A project with wrong labels: which regions are wrong, by task."""

    project: int
    boxes: int
    wrong: set[tuple[int, str]]


@pytest.fixture(scope="module")
def studio(stack: DemoStack) -> Any:
    return open_studio(stack.settings)


@pytest.fixture(scope="module")
def labelled(stack: DemoStack, studio: Any) -> Iterator[Labelled]:
    """Generated scenes with true boxes, of which five in a hundred have another class; the starter head is active."""
    folder = stack.folder.parent / "relabel"
    folder.mkdir()
    rng, classes, tasks, flipped = np.random.default_rng(5), list(DISPLAY_NAMES.values()), [], []
    width, height = SETTINGS.size_wh
    for number in range(SCENES):
        scene = draw_scene(FIRST_SEED + number, SETTINGS)
        Image.fromarray(scene.image).save(folder / f"{number:02}.png")
        result = []
        for index, one in enumerate(scene.objects):
            label = display_name(one.shape)
            if rng.random() < WRONG:
                label = str(rng.choice([other for other in classes if other != label]))
                flipped.append((number, f"{number}-{index}"))
            x0, y0, x1, y1 = one.xyxy
            value = {
                "x": 100 * x0 / width, "y": 100 * y0 / height, "width": 100 * (x1 - x0) / width,
                "height": 100 * (y1 - y0) / height, "rotation": 0, "rectanglelabels": [label],
            }  # fmt: skip
            result.append(
                {
                    "id": f"{number}-{index}", "from_name": "box", "to_name": "image", "type": "rectanglelabels",
                    "original_width": width, "original_height": height, "image_rotation": 0, "value": value,
                }
            )  # fmt: skip
        address = f"/data/local-files/?d={folder.name}/{number:02}.png"
        tasks.append({"data": {"image": address}, "annotations": [{"result": result}]})
    project = studio.projects.create(title="Wrong labels", label_config=build("boxes", classes)).id
    try:
        studio.import_storage.local.create(project=project, path=str(folder), title="relabel", use_blob_urls=True)
        made = studio.projects.import_tasks(id=project, request=tasks, return_task_ids=True)
        registry = head_registry(stack.settings)
        registry.activate(project, registry.add(Head.load(STARTER_HEAD), project, {}).version, "person")
        boxes = sum(len(task["annotations"][0]["result"]) for task in tasks)
        yield Labelled(project, boxes, {(made.task_ids[number], region) for number, region in flipped})
    finally:
        studio.projects.delete(project)


def tator(stack: DemoStack, monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    for name, value in stack.settings.environment().items():
        monkeypatch.setenv(name, value)
    app = typer.Typer()
    app.callback()(lambda: None)
    relabel_cli.register(app)
    done = CliRunner().invoke(app, ["relabel", *words], env={"COLUMNS": "200"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def by_score(studio: Any, labelled: Labelled, job: str) -> list[Any]:
    """Tasks of a job as the Data Manager orders them by prediction score, ascending."""
    column = {"filter": "filter:tasks:predictions_model_versions", "operator": "contains", "type": "List"}
    filters = {"conjunction": "and", "items": [{**column, "value": [job]}]}
    query = json.dumps({"filters": filters, "ordering": ["tasks:predictions_score"]})
    return list(studio.tasks.list(project=labelled.project, query=query, fields="all"))


def test_wrong_labels_are_found_offered_once_and_taken_back(
    stack: DemoStack, studio: Any, labelled: Labelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, settings = labelled.project, stack.settings
    dry = relabel(Relabel(project=project, dry_run=True), settings, LocalJob(settings, f"relabel-{project}-dry"))
    assert dry["boxes"] == labelled.boxes and not list(studio.predictions.list(project=project))

    said = tator(stack, monkeypatch, "--project", str(project))  # a worker lives: it takes the job
    with connect_redis(settings) as connection:
        (record,) = JobRecords(connection).list(project)
    report, job = record.result, record.id
    assert report is not None and record.status == "done" and f"--undo {job}" in said

    held = list(studio.predictions.list(project=project))
    found = {(one.task, item["id"]) for one in held for item in one.result}
    precision, recall = (len(found & labelled.wrong) / len(one) for one in (found, labelled.wrong))
    print(f"\n{labelled.boxes} boxes, {len(labelled.wrong)} wrong, {len(found)} found: {precision=:.2f} {recall=:.2f}")
    assert recall >= 0.8 and precision >= 0.6
    assert (
        report["pushed"] == report["doubtful_tasks"] == dry["offered"] == len({one.task for one in held}) == len(held)
    )
    assert {one.model_version for one in held} == {report["model_version"]} == {f"{report['head']}/{job}"}
    first = report["doubtful"][0]
    assert f"{stack.studio.url}/projects/{project}/data?task={first['task']}" in said

    # ids rise in the order of pushing; Label Studio orders alike, once the project shows this version
    scores = [one.score for one in sorted(held, key=lambda one: one.id)]
    assert scores == sorted(scores)
    assert {task.predictions_score for task in by_score(studio, labelled, job)} == {None}
    studio.projects.update(project, model_version=report["model_version"])
    shown = by_score(studio, labelled, job)
    assert [task.predictions_score for task in shown] == pytest.approx(scores)
    assert {shown[0].id} <= {one.task for one in held if one.score == scores[0]}

    again = relabel(Relabel(project=project), settings, LocalJob(settings, job))
    (settings.home / "jobs" / job / "found.json").unlink()
    anew = relabel(Relabel(project=project), settings, LocalJob(settings, job))
    assert again["pushed"] == anew["pushed"] == 0 and again["already_there"] == len(held)
    assert {one.id for one in studio.predictions.list(project=project)} == {one.id for one in held}

    other = studio.predictions.create(
        task=first["task"], result=held[0].result, score=0.5, model_version=f"{report['head']}/check"
    )
    assert f"{len(held)} of {job}" in tator(stack, monkeypatch, "--undo", job, "--yes")
    assert [one.id for one in studio.predictions.list(project=project)] == [other.id]


def test_half_a_push_is_completed(stack: DemoStack, studio: Any, labelled: Labelled) -> None:
    """As a kill between two batches leaves it; that a killed job is taken up again, tests/jobs shows."""
    settings, project = stack.settings, labelled.project
    job = LocalJob(settings, f"relabel-{project}-half")
    relabel(Relabel(project=project), settings, job)
    mine = [one for one in studio.predictions.list(project=project) if str(one.model_version).endswith(job.id)]
    assert len(mine) > 1
    for one in mine[::2]:
        studio.predictions.delete(one.id)
    report = relabel(Relabel(project=project), settings, LocalJob(settings, job.id))
    assert report["pushed"] == len(mine[::2])
    after = [one for one in studio.predictions.list(project=project) if str(one.model_version).endswith(job.id)]
    assert sorted(one.task for one in after) == sorted(one.task for one in mine)
    assert {one.id for one in mine[1::2]} <= {one.id for one in after}


@pytest.mark.faults
def test_a_killed_job_offers_each_once(stack: DemoStack, studio: Any, labelled: Labelled) -> None:
    settings, project = stack.settings, labelled.project
    record = jobs.start(settings, "relabel", {"project": project}, project=project, title="killed")
    with connect_redis(settings) as connection:
        records = JobRecords(connection)
        until(lambda: records.get(record.id).status == "running", 180)
        os.kill(Owner.from_json(read_fields(connection, record.id)["owner"]).pid, signal.SIGKILL)
        ended = until(lambda: one if (one := records.get(record.id)).over else None, 180)
    assert (ended.status, ended.attempt) == ("done", 2), ended.error
    mine = [one for one in studio.predictions.list(project=project) if str(one.model_version).endswith(record.id)]
    assert mine and len({one.task for one in mine}) == len(mine) == ended.result["pushed"]
