"""``tator tweak`` on a real Label Studio: predictions, in place, undo, and a worker that is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import typer
from pydantic import SecretStr
from typer.testing import CliRunner

from demo.labelled import LabelledProject, LabelledTask, labelled_project, region
from demo.stack import DemoStack
from tator_ml import jobs
from tator_ml.jobs import JobRecords, connect_redis
from tator_ml.jobs.lifecycle import read_fields
from tator_ml.jobs.owner import Owner
from tator_ml.learning.stores import example_store
from tator_sdk.errors import TatorError
from tator_sdk.geometry import Xyxy, iou_xyxy
from tests.studio.test_head import until
from training.cli import tweak as tweak_cli
from training.journal import lines_of
from training.starter.names import DISPLAY_NAMES
from training.starter.scenes import SceneSettings
from training.tweak.apply import CHANGES_FILE

pytestmark = [pytest.mark.studio, pytest.mark.timeout(300)]

SEEDS = range(9_930_000, 9_930_006)
SETTINGS = SceneSettings(size_wh=(320, 240), min_side=50, max_side=120, objects=(4, 7), camouflage=0.1)
LOOSE = 0.1  # of a box's side, on each side


@pytest.fixture(scope="module")
def project(stack: DemoStack) -> Iterator[LabelledProject]:
    with labelled_project(
        stack, "Tweaked", SEEDS, DISPLAY_NAMES.__getitem__, list(DISPLAY_NAMES.values()), SETTINGS
    ) as made:
        yield made


def loosely(task: LabelledTask) -> list[dict[str, Any]]:
    width, height = task.size_wh
    made = []
    for one in task.boxes:
        x0, y0, x1, y1 = one.xyxy
        wide, high = LOOSE * (x1 - x0), LOOSE * (y1 - y0)
        loose = (max(0, x0 - wide), max(0, y0 - high), min(width, x1 + wide), min(height, y1 + high))
        made.append(region(one.label, loose, task.size_wh))
    return made


@pytest.fixture
def annotated(project: LabelledProject) -> Iterator[dict[int, tuple[LabelledTask, list[Any]]]]:
    """Every task with loosely drawn boxes; by annotation the task and its regions."""
    made = {}
    for task in project.tasks:
        result = loosely(task)
        made[int(project.studio.annotations.create(task.number, result=result).id)] = (task, result)
    yield made
    for number in made:
        project.studio.annotations.delete(number)


def tator(stack: DemoStack, monkeypatch: pytest.MonkeyPatch, *words: str, code: int = 0) -> str:
    for name, value in stack.settings.environment().items():
        monkeypatch.setenv(name, value)
    app = typer.Typer()
    app.callback()(lambda: None)
    tweak_cli.register(app)
    done = CliRunner().invoke(app, ["tweak", *words], env={"COLUMNS": "200"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


def stored(project: LabelledProject, number: int) -> list[Any]:
    return list(project.studio.annotations.get(number).result)


def agreement(task: LabelledTask, result: list[Any]) -> float:
    """Mean IoU of regions with the scene's truth."""
    width, height = task.size_wh

    def corners(value: dict[str, float]) -> Xyxy:
        x0, y0 = value["x"] * width / 100, value["y"] * height / 100
        return x0, y0, x0 + value["width"] * width / 100, y0 + value["height"] * height / 100

    pairs = zip(result, task.boxes, strict=True)
    return sum(iou_xyxy(corners(one["value"]), truth.xyxy) for one, truth in pairs) / len(task.boxes)


def last_job(stack: DemoStack, project: LabelledProject) -> Any:
    with connect_redis(stack.settings) as connection:
        return next(one for one in JobRecords(connection).list(project.number) if one.kind == "tweak")


def test_predictions_beside_the_annotations_and_back(
    stack: DemoStack, project: LabelledProject, annotated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ("--project", str(project.number))
    assert "Nothing was changed" in tator(stack, monkeypatch, *wanted, "--dry-run", "--here")
    assert not list(project.studio.predictions.list(project=project.number))
    said = tator(stack, monkeypatch, *wanted, "--pictures", "8")  # a worker lives: it takes the job
    report, job = last_job(stack, project).result, last_job(stack, project).id
    held = {one.task: one.result for one in project.studio.predictions.list(project=project.number)}
    boxes = sum(len(task.boxes) for task, _ in annotated.values())
    assert report["boxes"] == boxes and report["pushed"] == report["offered_tasks"] == len(held)
    assert f"--undo {job}" in said and (stack.settings.home / "jobs" / job / "moved.png").exists()
    before = after = 0.0
    for number, (task, result) in annotated.items():
        assert stored(project, number) == result, "annotations stay"
        offered = held.get(task.number, result)
        assert [one["id"] for one in offered] == [one["id"] for one in result]
        before += agreement(task, result) / len(annotated)
        after += agreement(task, offered) / len(annotated)
    print(
        f"\n{boxes} boxes, {report['moved']} moved, {report['kept']} kept {report['why']}: {before:.3f} → {after:.3f}"
    )
    print(said)
    assert after > before + 0.05 and report["moved"] > 0.4 * boxes
    assert f"{len(held)} of {job}" in tator(stack, monkeypatch, "--undo", job, "--yes")
    assert not list(project.studio.predictions.list(project=project.number))
    assert "Nothing of" in tator(stack, monkeypatch, "--undo", job, "--yes")


def test_a_view_in_place_and_undone_but_for_what_a_person_changed(
    stack: DemoStack, project: LabelledProject, annotated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio, numbers = project.studio, list(annotated)
    shown, drafted, changed = numbers[:4], numbers[0], numbers[1]
    tasks = {number: annotated[number][0].number for number in numbers}
    limit = {"filter": "filter:tasks:id", "operator": "less", "type": "Number", "value": tasks[numbers[4]]}
    filters = {"conjunction": "and", "items": [limit]}
    view = studio.views.create(project=project.number, data={"title": "some", "filters": filters}).id
    about = studio.annotations.get(changed)
    draft = project.web.post(
        f"/api/tasks/{tasks[drafted]}/annotations/{drafted}/drafts", json={"result": annotated[drafted][1]}
    ).raise_for_status().json()  # fmt: skip
    with closing(example_store(stack.settings)) as examples:
        until(lambda: set(examples.known(project.number)) >= set(numbers), 20, "the annotations are known")

        wanted = ("--project", str(project.number), "--view", str(view), "--in-place", "--here")
        said = tator(stack, monkeypatch, *wanted)
        job = said.split("--undo ")[-1].strip()
        report = json.loads((stack.settings.home / "jobs" / job / "report.json").read_text())
        moved = {number for number in numbers if stored(project, number) != annotated[number][1]}
        assert moved and moved <= set(shown) - {drafted} and report["changed"] == len(moved)
        assert report["tasks"] == 4 and changed in moved
        assert [one["annotation"] for one in report["skipped"]] == [drafted] and "unsaved changes" in said
        project.web.get(f"/api/drafts/{draft['id']}/").raise_for_status()
        now = studio.annotations.get(changed)
        assert now.completed_by == about.completed_by and now.lead_time == about.lead_time
        assert [one["id"] for one in now.result] == [one["id"] for one in annotated[changed][1]]
        for number in moved:
            task, result = annotated[number]
            assert agreement(task, stored(project, number)) > agreement(task, result)

        def learned() -> bool:
            known = {(one.annotation, one.region): one.xyxy for one in examples.of_project(project.number)}
            rows = examples.of_project(project.number)
            new = next(one for one in now.result if one["value"] != old[one["id"]]["value"])
            left = new["value"]["x"] * new["original_width"] / 100
            return len(known) == len(rows) and abs(known[changed, new["id"]][0] - left) < 0.01

        old = {one["id"]: one for one in annotated[changed][1]}
        until(learned, 20, "our webhook has the new boxes, each once")
        assert len(examples.of_project(project.number)) == sum(len(result) for _, result in annotated.values())

    by_hand = stored(project, changed)
    by_hand[0]["value"]["rectanglelabels"] = ["Ring" if by_hand[0]["value"]["rectanglelabels"] != ["Ring"] else "Disc"]
    studio.annotations.update(changed, result=by_hand)
    said = tator(stack, monkeypatch, "--undo", job, "--yes", code=1)
    assert f"annotation {changed} of task {tasks[changed]}: a person changed it since" in said
    assert stored(project, changed) == by_hand
    for number in set(numbers) - {changed}:
        assert stored(project, number) == annotated[number][1], "every box exactly"
    assert "Annotations restored: 0; stood so already" in tator(stack, monkeypatch, "--undo", job, "--yes", code=1)
    studio.views.delete(str(view))


@pytest.mark.faults
def test_killed_in_the_middle_every_annotation_is_changed_once(
    stack: DemoStack, project: LabelledProject, annotated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = {"project": project.number, "in_place": True}
    job = jobs.start(stack.settings, "tweak", request, project=project.number, title="killed").id
    record = stack.settings.home / "jobs" / job / CHANGES_FILE
    with connect_redis(stack.settings) as connection:
        records = JobRecords(connection)
        while (begun := sum("after" in line for _, line in lines_of(record))) < 3:
            assert not records.get(job).over, "it was too quick to be hit in the middle"
            time.sleep(0.005)
        os.kill(Owner.from_json(read_fields(connection, job)["owner"]).pid, signal.SIGKILL)
        until(lambda: records.get(job).over, 60, "another attempt ends it")
        ended = records.get(job)
    assert (ended.status, ended.attempt) == ("done", 2), ended.error
    lines = [line for _, line in lines_of(record)]
    changed = [line["annotation"] for line in lines if "after" in line]
    assert len(changed) == len(set(changed)) > begun and ended.result is not None
    assert ended.result["changed"] == len(changed) and ended.result["changed_before"] >= begun - 1
    after = {line["annotation"]: line["after"] for line in lines if "after" in line}
    before = {line["annotation"]: line["before"] for line in lines if "after" in line}
    for number, (_, result) in annotated.items():
        assert stored(project, number) == after.get(number, result) and before.get(number, result) == result
    said = tator(stack, monkeypatch, "--undo", job, "--yes")
    assert f"Annotations restored: {len(changed)}" in said
    assert all(stored(project, number) == result for number, (_, result) in annotated.items())


def test_what_cannot_be_done_is_said(
    stack: DemoStack, project: LabelledProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio, number = project.studio, str(project.number)
    with pytest.raises(TatorError, match="has no class 'Bicycle'; it has Disc, Ring"):
        tator(stack, monkeypatch, "--project", number, "--class", "Bicycle", "--here")
    view = studio.views.create(project=stack.project, data={"title": "elsewhere"}).id
    with pytest.raises(TatorError, match=f"View {view} belongs to project {stack.project}"):
        tator(stack, monkeypatch, "--project", number, "--view", str(view), "--here")
    studio.views.delete(str(view))
    with pytest.raises(TatorError, match="There is no view 99999"):
        tator(stack, monkeypatch, "--project", number, "--view", "99999", "--here")
    with pytest.raises(TatorError, match="has no task 99999"):
        tator(stack, monkeypatch, "--project", number, "--task", "99999", "--here")
    assert "There was no box to tighten" in tator(stack, monkeypatch, "--project", number, "--here")
    monkeypatch.setattr(
        tweak_cli, "read_settings", lambda home: stack.settings.model_copy(update={"label_studio_api_key": None})
    )
    with pytest.raises(TatorError, match="No Label Studio token"):
        tator(stack, monkeypatch, "--project", number, "--here")
    wrong = stack.settings.model_copy(update={"label_studio_api_key": SecretStr("0" * 40)})
    monkeypatch.setattr(tweak_cli, "read_settings", lambda home: wrong)
    with pytest.raises(TatorError, match="refuses the token"):
        tator(stack, monkeypatch, "--project", number, "--here")
