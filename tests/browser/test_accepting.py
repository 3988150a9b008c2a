"""Every way of accepting leaves exactly one region for one object, in the real editor and in its storage.

What Label Studio does by itself, where that is not what one would expect, is tested too: it is what
people are told (see ``tator_ml/prompts/assists.py``), and a newer release may do otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from demo.pictures import TruthObject, classes
from demo.stack import DemoStack
from label_config.build import build
from tator_sdk.connect import Connection, strip_url
from tator_sdk.geometry import iou_xyxy
from tator_sdk.studio import open_studio

from .editor import BOX, POINT, Editor, corners, loosely, objects_of

pytestmark = [pytest.mark.browser, pytest.mark.studio, pytest.mark.timeout(400)]

WAYS: dict[str, Callable[[Editor], None]] = {"all at once": Editor.accept, "by itself": Editor.tick}
EDGES = ("x", "y", "width", "height")
accepting = pytest.mark.parametrize("accept", WAYS.values(), ids=WAYS)


@dataclass
class Scene:
    """A task of its own, opened in the editor.

    Attributes:
        first: an object of the picture.
        second: another one, well away from the first.
    """

    editor: Editor
    studio: Any
    first: TruthObject
    second: TruthObject

    def stored(self, count: int) -> list[dict[str, Any]]:
        """What is stored of the task's one annotation, once it has so many regions."""
        for _ in range(60):
            (annotation,) = self.studio.annotations.list(id=self.editor.task)
            if len(annotation.result) == count:
                break
            time.sleep(0.25)  # points that were left over are removed behind the submission
        return list(annotation.result)

    def assert_no_prediction(self) -> None:
        """Opening a task and asking for suggestions stores none."""
        assert list(self.studio.predictions.list(task=self.editor.task)) == []

    def point(self, one: TruthObject, *held: str, label: str | None = None) -> str:
        """Click an object; gives the id of what is suggested."""
        self.editor.tool(POINT)
        self.editor.label(label or one.label, POINT)
        self.editor.click(one.point, *held)
        (suggested,) = self.editor.suggested
        return str(suggested["id"])

    def box(self, one: TruthObject, label: str | None = None) -> None:
        """Draw a loose box around an object."""
        self.editor.tool(BOX)
        self.editor.label(label or one.label, BOX)
        self.editor.drag(loosely(one.xyxy))


Picture = tuple[dict[str, Any], list[TruthObject]]


@pytest.fixture(scope="module")
def studio(stack: DemoStack) -> Any:
    return open_studio(stack.settings)


@pytest.fixture(scope="module")
def picture(stack: DemoStack, studio: Any) -> Picture:
    """A task's data with the scene of most objects that stand apart."""
    tasks = studio.tasks.list(project=stack.project)
    return max(((task.data, objects_of(stack, task)) for task in tasks), key=lambda pair: len(pair[1]))


@pytest.fixture
def scene(stack: DemoStack, studio: Any, page: Any, picture: Picture) -> Iterator[Scene]:
    """A new task, so that no draft of another test is on it; in the end it has no prediction."""
    data, (first, second, *_) = picture
    made = Scene(Editor(page, stack, new_task(studio, stack.project, data)), studio, first, second)
    yield made
    made.assert_no_prediction()


def new_task(studio: Any, project: int, data: dict[str, Any]) -> int:
    made = studio.projects.import_tasks(id=project, request=[{"data": data}], return_task_ids=True)
    return int(made.task_ids[0])


def assert_boxes(regions: list[dict[str, Any]], *truth: TruthObject) -> None:
    """One box for each object and nothing else, each at its place."""
    assert [region["type"] for region in regions] == ["rectanglelabels"] * len(truth)
    assert len({region["id"] for region in regions}) == len(truth)
    for region, one in zip(regions, truth, strict=True):
        assert iou_xyxy(corners(region), one.xyxy) > 0.7, (region, one)
        assert region["value"]["rectanglelabels"] == [one.label] and "score" in region


@accepting
def test_a_point_becomes_one_box(scene: Scene, accept: Callable[[Editor], None]) -> None:
    suggested = scene.point(scene.first)
    accept(scene.editor)
    assert [region["id"] for region in scene.editor.regions() if not region["prompt"]] == [suggested]
    scene.editor.submit()
    assert_boxes(scene.stored(1), scene.first)


@accepting
def test_a_loose_box_is_tightened_in_place(scene: Scene, accept: Callable[[Editor], None]) -> None:
    scene.box(scene.first)
    (drawn,) = scene.editor.regions()
    accept(scene.editor)
    assert [region["id"] for region in scene.editor.regions()] == [drawn["id"]]
    scene.editor.submit()
    assert_boxes(scene.stored(1), scene.first)


def test_a_point_and_a_box_are_accepted_automatically(scene: Scene) -> None:
    scene.editor.auto_accept(True)
    scene.point(scene.first)
    scene.box(scene.second)
    scene.editor.submit()
    assert_boxes(scene.stored(2), scene.first, scene.second)


def test_several_points_become_one_box(scene: Scene) -> None:
    suggested = scene.point(scene.first)
    beside = TruthObject(scene.first.label, scene.first.xyxy, scene.second.point)
    assert scene.point(beside, "Alt") == suggested
    scene.editor.accept()
    scene.editor.submit()
    assert_boxes(scene.stored(1), scene.first)


def test_points_that_the_small_tick_left_do_not_disturb_the_next_object(scene: Scene) -> None:
    suggested = scene.point(scene.first)
    beside = TruthObject(scene.first.label, scene.first.xyxy, scene.second.point)
    assert scene.point(beside, "Alt") == suggested
    with scene.editor.draft_with(suggested):
        scene.editor.tick()
    assert [region["prompt"] for region in scene.editor.regions()] == [True, True, False]
    # on the second object stands, with the same label, the point that took it away from the first one
    scene.point(scene.second, "Control", label=scene.first.label)
    scene.editor.accept()
    scene.editor.submit()
    first, second = scene.stored(2)
    assert_boxes([first], scene.first)
    assert iou_xyxy(corners(second), scene.second.xyxy) > 0.7


@accepting
def test_a_label_that_stays_selected_is_not_stored_twice(scene: Scene, accept: Callable[[Editor], None]) -> None:
    scene.editor.page.evaluate("() => Htx.settings.toggleContinuousLabeling()")
    try:
        scene.point(scene.first)
        accept(scene.editor)
        scene.editor.submit()
        assert_boxes(scene.stored(1), scene.first)
    finally:
        scene.editor.page.evaluate("() => Htx.settings.toggleContinuousLabeling()")


def test_what_is_pending_at_submission_is_stored_as_it_was_drawn(scene: Scene) -> None:
    scene.point(scene.first)
    (drawn,) = scene.editor.regions()
    scene.editor.submit()
    (stored,) = scene.stored(1)
    assert (stored["id"], stored["type"]) == (drawn["id"], "keypointlabels")


def test_a_box_pending_at_submission_is_stored_once(scene: Scene) -> None:
    scene.box(scene.first)
    (drawn,) = scene.editor.regions()
    scene.editor.submit()
    (stored,) = scene.stored(1)
    assert (stored["id"], stored["type"], "score" in stored) == (drawn["id"], "rectanglelabels", False)


def test_an_accepted_box_stays_as_it_is_when_another_is_drawn(scene: Scene) -> None:
    scene.box(scene.first)
    (before,) = scene.editor.suggested
    scene.editor.accept()
    scene.box(scene.second, label=scene.first.label)
    scene.editor.accept()
    scene.editor.submit()
    first, second = scene.stored(2)
    assert_boxes([first], scene.first)
    assert [first["value"][key] for key in EDGES] == pytest.approx([before["value"][key] for key in EDGES])
    assert second["id"] != first["id"]
    assert iou_xyxy(corners(second), scene.second.xyxy) > 0.7


@accepting
def test_two_boxes_wait_side_by_side(scene: Scene, accept: Callable[[Editor], None]) -> None:
    scene.box(scene.first)
    scene.box(scene.second, label=scene.first.label)
    drawn = [region["id"] for region in scene.editor.regions()]
    assert [one["id"] for one in scene.editor.suggested] == drawn
    while scene.editor.suggested:
        accept(scene.editor)
    scene.editor.submit()
    stored = scene.stored(2)
    assert [region["id"] for region in stored] == drawn
    for region, one in zip(stored, (scene.first, scene.second), strict=True):
        assert iou_xyxy(corners(region), one.xyxy) > 0.7


@pytest.mark.parametrize(
    ("by_hand", "accept"),
    [(True, WAYS["all at once"]), (False, WAYS["by itself"])],
    ids=["drawn by hand, all at once", "accepted, by itself"],
)
def test_a_standing_box_is_tweaked_in_place(scene: Scene, by_hand: bool, accept: Callable[[Editor], None]) -> None:
    editor = scene.editor
    if by_hand:
        editor.tool(BOX, smart=False)
        editor.label(scene.first.label, BOX)
        editor.drag(loosely(scene.first.xyxy, 0.12), asks=False)
    else:
        scene.point(scene.first)
        editor.accept()
    (standing,) = editor.regions()
    with editor.draft_with(standing["id"]):  # which makes the box known
        editor.page.keyboard.press("k")
        editor.page.keyboard.press("x")
    editor.click(scene.first.point, "Control")
    assert [one["id"] for one in editor.suggested] == [standing["id"]]
    accept(editor)
    assert [region["id"] for region in editor.regions() if not region["prompt"]] == [standing["id"]]
    editor.submit()
    assert_boxes(scene.stored(1), scene.first)


def test_what_is_rejected_leaves_nothing(scene: Scene) -> None:
    scene.point(scene.first)
    scene.editor.reject()
    assert scene.editor.regions() == []
    assert list(scene.studio.annotations.list(id=scene.editor.task)) == []


def test_the_small_cross_leaves_the_point(scene: Scene) -> None:
    scene.point(scene.first)
    before = scene.editor.regions()
    scene.editor.cross()
    assert scene.editor.regions() == before
    assert [(left["type"], left["prompt"]) for left in before] == [("keypointlabels", True)]


def test_a_prompt_with_another_label_takes_away_what_is_pending(scene: Scene) -> None:
    scene.point(scene.first)
    other = next(label for label in ("Disc", "Ring") if label != scene.first.label)
    scene.point(scene.second, label=other)
    scene.editor.accept()
    scene.editor.submit()
    (region,) = scene.stored(1)
    assert iou_xyxy(corners(region), scene.second.xyxy) > 0.7


@pytest.fixture
def masks(stack: DemoStack, studio: Any) -> Iterator[int]:
    """Number of a connected project whose points become masks."""
    project = int(studio.projects.create(title="Masks", label_config="<View/>").id)
    strip = strip_url(stack.settings, stack.settings.backend_url, project)
    studio.projects.update(project, label_config=build("masks", classes(), strip, project=project))
    for _ in Connection(stack.settings, project, stack.settings.backend_url).run():
        pass
    yield project
    studio.projects.delete(project)


def test_a_mask_takes_the_points_place(stack: DemoStack, studio: Any, page: Any, picture: Picture, masks: int) -> None:
    data, (clicked, *_) = picture
    scene = Scene(Editor(page, stack, new_task(studio, masks, data), masks), studio, clicked, clicked)
    suggested = scene.point(clicked)
    (drawn,) = scene.editor.regions()
    scene.editor.tick()
    (accepted,) = scene.editor.regions()
    assert suggested == drawn["id"] == accepted["id"]
    scene.editor.submit()
    (region,) = scene.stored(1)
    assert (region["id"], region["type"], region["value"]["format"]) == (suggested, "brushlabels", "rle")
    scene.assert_no_prediction()


def test_the_strip_says_what_went_wrong(scene: Scene) -> None:
    from playwright.sync_api import expect

    editor = scene.editor
    editor.tool(POINT)
    editor.label(scene.first.label, POINT)
    editor.click(scene.first.point, "Alt")
    assert editor.suggested == []
    expect(editor.strip()).to_have_text("All points are negative; click once on the object itself.", timeout=30_000)
    editor.label(scene.first.label, POINT)
    editor.click(scene.first.point, "Control")  # for a point stands there already
    expect(editor.strip()).to_contain_text(" ms", timeout=30_000)
