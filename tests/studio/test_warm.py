"""Pictures are warm before they are opened: through a real Label Studio, its webhooks and its lists of tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from demo.labelled import LabelledProject, LabelledTask, labelled_project, region
from demo.stack import DemoStack
from tator_ml.engine.client import EngineClient
from tator_ml.images.store import ImageStore
from tests.cli.conftest import Tator
from tests.studio.test_head import until
from training.starter.names import DISPLAY_NAMES

pytestmark = [pytest.mark.studio, pytest.mark.timeout(300)]

SEEDS = range(9_820_000, 9_820_014)


@pytest.fixture(scope="module")
def project(stack: DemoStack) -> Iterator[LabelledProject]:
    with labelled_project(
        stack, "Warm pictures", SEEDS, DISPLAY_NAMES.__getitem__, list(DISPLAY_NAMES.values())
    ) as made:
        yield made


@pytest.fixture
def engine(stack: DemoStack) -> Iterator[EngineClient]:
    client = EngineClient(stack.settings, ImageStore(stack.settings.home / "images", 2**30))
    yield client
    client.close()


def image_of(stack: DemoStack, project: LabelledProject, task: LabelledTask) -> str:
    """Content hash of a task's picture."""
    number = project.tasks.index(task)
    folder = stack.folder.parent / "warm-pictures"
    return hashlib.sha256(sorted(folder.iterdir())[number].read_bytes()).hexdigest()


def test_the_next_and_the_previous_picture_are_warm_before_they_are_opened(
    stack: DemoStack, project: LabelledProject, engine: EngineClient
) -> None:
    def warm() -> set[str]:
        return {one.image for one in engine.status().warm}

    images = [image_of(stack, project, task) for task in project.tasks]
    opened = project.tasks[4]
    project.web.get(f"/api/tasks/{opened.number}", params={"project": project.number}).raise_for_status()
    until(lambda: {images[4], images[5], images[3]} <= warm(), 20, "the picture and its neighbours")

    following = project.tasks[5]
    before = engine.status()
    answer = project.ask(following, [region(following.boxes[0].label, following.boxes[0].xyxy, following.size_wh)])
    after = engine.status()
    assert answer["result"] and after.misses == before.misses and after.hits > before.hits
    until(lambda: images[6] in warm(), 20, "the one after, in the direction of work")

    project.annotate([following])
    project.web.get(f"/api/tasks/{project.tasks[6].number}", params={"project": project.number}).raise_for_status()
    until(lambda: images[7] in warm(), 20, "the one after a submission")


def test_a_whole_project_is_encoded_ahead_once(
    stack: DemoStack, project: LabelledProject, engine: EngineClient, tator: Tator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stack.settings.environment().items():
        monkeypatch.setenv(name, value)

    before = engine.status().encodings
    said = tator("warm", str(project.number))
    after = engine.status().encodings
    assert 0 < after - before <= len(project.tasks), said
    tator("warm", str(project.number))
    assert engine.status().encodings == after
