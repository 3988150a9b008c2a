"""A head that learns: annotations in a real Label Studio, its "Start Training", and the next click."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from demo.labelled import LabelledProject, LabelledTask, labelled_project, region
from demo.stack import DemoStack
from tator_ml.jobs import JobRecord, JobRecords, connect_redis
from tator_ml.learning.stores import example_store, head_registry, project_choices
from training.starter.scenes import CLASSES

pytestmark = [pytest.mark.studio, pytest.mark.timeout(400)]

# Every shape is called by another's name, so the starter head is always wrong here.
SCRAMBLED = {shape: CLASSES[(index + 3) % len(CLASSES)].capitalize() for index, shape in enumerate(CLASSES)}
SEEDS = range(9_810_000, 9_810_046)
LABELLED = 40


@pytest.fixture(scope="module")
def project(stack: DemoStack) -> Iterator[LabelledProject]:
    with labelled_project(stack, "Scrambled shapes", SEEDS, SCRAMBLED.__getitem__, sorted(SCRAMBLED.values())) as made:
        yield made


@dataclass(frozen=True)
class Trained:
    """What "Start Training" did.

    Attributes:
        unseen: tasks that it has not learned from.
        before: their true and answered classes before.
        job: as it ended.
    """

    unseen: list[LabelledTask]
    before: list[tuple[str, str]]
    job: JobRecord


@pytest.fixture(scope="module")
def trained(stack: DemoStack, project: LabelledProject) -> Trained:
    """The project after most of it was annotated and the button was pressed."""
    unseen = [task for task in project.tasks if len(task.boxes)][LABELLED:]
    before = said_of(project, unseen)
    project_choices(stack.settings).choose(project.number, train_after=0)  # only the button trains here
    project.annotate(project.tasks[:LABELLED])
    project.studio.ml.train(project.backend)
    until(lambda: len(jobs_of(stack, project)) == 1, 20, "a job after Start Training")
    job = until(lambda: next((one for one in jobs_of(stack, project) if one.over), None), 120, "the job's end")
    return Trained(unseen, before, job)


def until(met: Callable[[], Any], seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := met():
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def jobs_of(stack: DemoStack, project: LabelledProject) -> list[Any]:
    with connect_redis(stack.settings) as connection:
        return JobRecords(connection).list(project=project.number)


def said_of(project: LabelledProject, tasks: Any) -> list[tuple[str, str]]:
    """True class and answered class of the largest box of each task, drawn with a tentative label."""
    pairs = []
    for task in tasks:
        box = max(task.boxes, key=lambda one: (one.xyxy[2] - one.xyxy[0]) * (one.xyxy[3] - one.xyxy[1]))
        tentative = next(name for name in sorted(SCRAMBLED.values()) if name != box.label)
        answer = project.ask(task, [region(tentative, box.xyxy, task.size_wh)])
        pairs.append((box.label, answer["result"][0]["value"]["rectanglelabels"][0]))
    return pairs


def right_share(pairs: list[tuple[str, str]]) -> float:
    return sum(truth == said for truth, said in pairs) / len(pairs)


def test_start_training_makes_the_next_click_right(
    stack: DemoStack, project: LabelledProject, trained: Trained
) -> None:
    job, unseen = trained.job, trained.unseen
    assert right_share(trained.before) <= 0.2  # the starter head says what the shapes really are
    assert job.status == "done", job.error
    assert job.result is not None and job.result["activated"], job.result
    assert job.result["boxes"] == sum(len(task.boxes) for task in project.tasks[:LABELLED])

    pairs = said_of(project, unseen)
    assert right_share(pairs) >= 0.8, pairs
    answer = project.ask(unseen[0], [region(pairs[0][0], unseen[0].boxes[0].xyxy, unseen[0].size_wh)])
    assert answer["model_version"].endswith(f"+{job.result['version']}")
    assert project.shown_version() == answer["model_version"]
    entry = head_registry(stack.settings).active(project.number)
    assert entry is not None and entry.version == job.result["version"]
    assert entry.report["gate"]["candidate"] > entry.report["gate"]["majority"]


@pytest.mark.usefixtures("trained")
def test_a_tentative_class_drawn_by_hand_is_checked_on_submission(project: LabelledProject) -> None:
    task = project.tasks[-1]
    result = task.result()
    wrong = next(name for name in sorted(SCRAMBLED.values()) if name != task.boxes[0].label)
    largest = max(range(len(result)), key=lambda row: result[row]["value"]["width"] * result[row]["value"]["height"])
    truth = task.boxes[largest].label
    wrong = next(name for name in sorted(SCRAMBLED.values()) if name != truth)
    result[largest]["value"]["rectanglelabels"] = [wrong]
    annotation = project.studio.annotations.create(task.number, result=result)

    def offers() -> list[Any]:
        return [
            one for one in project.studio.predictions.list(task=task.number) if one.model_version.endswith("/check")
        ]

    (offered,) = until(offers, 60, "an offered correction")
    regions = {one["id"]: one for one in offered.result}
    assert regions[result[largest]["id"]]["value"]["rectanglelabels"] == [truth]
    assert offered.score < 0.5

    result[largest]["value"]["rectanglelabels"] = [truth]
    project.studio.annotations.update(annotation.id, result=result)
    until(lambda: result[largest]["id"] not in {one["id"] for offer in offers() for one in offer.result}, 60, "its end")


@pytest.mark.usefixtures("trained")
def test_enough_new_annotations_train_once_and_deletions_are_followed(
    stack: DemoStack, project: LabelledProject
) -> None:
    before = len(jobs_of(stack, project))
    active = head_registry(stack.settings).active(project.number)
    assert active is not None
    project_choices(stack.settings).choose(project.number, train_after=5)
    numbers = project.annotate(project.tasks[LABELLED : LABELLED + 5])
    until(lambda: len(jobs_of(stack, project)) > before, 30, "a job after five annotations")
    until(lambda: all(one.over for one in jobs_of(stack, project)), 120, "its end")
    time.sleep(1)  # a second one would have been due since before the first ended
    assert len(jobs_of(stack, project)) == before + 1
    assert jobs_of(stack, project)[0].status == "done", jobs_of(stack, project)[0].error

    examples = example_store(stack.settings)
    try:
        assert set(numbers) <= set(examples.known(project.number))
        project.studio.annotations.delete(numbers[0])
        until(lambda: numbers[0] not in examples.known(project.number), 10, "the deleted annotation's end")
        assert not examples.of_project(project.number, numbers[0])
    finally:
        examples.close()
