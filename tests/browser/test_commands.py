"""``/tweak`` in the real editor: what is stored has the same ids, tighter boxes, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from demo.pictures import SETTINGS, TruthObject, classes, truth_of
from demo.stack import DemoStack
from label_config.build import build
from tator_sdk.connect import Connection, strip_url
from tator_sdk.geometry import Xyxy, iou_xyxy
from tator_sdk.studio import open_studio

from .editor import Editor, corners, loosely
from .test_accepting import new_task

pytestmark = [pytest.mark.browser, pytest.mark.studio, pytest.mark.timeout(400)]


@dataclass
class Prompted:
    """A project whose configuration has the prompt field, and a scene's truth."""

    project: int
    studio: Any
    data: dict[str, Any]
    truth: list[TruthObject]

    def drawn(self) -> list[dict[str, Any]]:
        """The scene's boxes, loosely drawn."""
        return [rectangle(f"box-{n}", one.label, loosely(one.xyxy, 0.1)) for n, one in enumerate(self.truth)]

    def stored(self, task: int) -> list[dict[str, Any]]:
        """The boxes of the task's one annotation."""
        (annotation,) = self.studio.annotations.list(id=task)
        return [item for item in annotation.result if item["type"] == "rectanglelabels"]


def rectangle(name: str, label: str, xyxy: Xyxy) -> dict[str, Any]:
    width, height = SETTINGS.size_wh
    x0, y0, x1, y1 = xyxy
    value = {
        "x": 100 * x0 / width, "y": 100 * y0 / height, "width": 100 * (x1 - x0) / width,
        "height": 100 * (y1 - y0) / height, "rotation": 0, "rectanglelabels": [label],
    }  # fmt: skip
    return {
        "id": name, "from_name": "box", "to_name": "image", "type": "rectanglelabels", "value": value,
        "original_width": width, "original_height": height, "image_rotation": 0,
    }  # fmt: skip


def enter(editor: Editor, words: str) -> None:
    """Type into the prompt field and wait for what is suggested."""
    field = editor.page.get_by_placeholder("what to find").first
    field.fill(words)
    with editor.page.expect_response(lambda answer: "interactive-annotating" in answer.url) as answered:
        field.first.press("Enter")
    editor.suggested = answered.value.json()["data"]["result"]


@pytest.fixture(scope="module")
def prompted(stack: DemoStack) -> Iterator[Prompted]:
    studio: Any = open_studio(stack.settings)
    tasks = list(studio.tasks.list(project=stack.project))
    data = max((task.data for task in tasks), key=lambda one: len(truth_of(stack.folder / Path(one["image"]).name)))
    project = int(studio.projects.create(title="Prompt field", label_config="<View/>").id)
    strip = strip_url(stack.settings, stack.settings.backend_url, project)
    studio.projects.update(project, label_config=build("all", classes(), strip, project=project))
    for _ in Connection(stack.settings, project, stack.settings.backend_url).run():
        pass
    yield Prompted(project, studio, data, truth_of(stack.folder / Path(data["image"]).name))
    studio.projects.delete(project)


def better(before: list[dict[str, Any]], after: list[dict[str, Any]], truth: list[TruthObject]) -> tuple[float, float]:
    """Mean IoU with the truth, before and after."""
    means = []
    for regions in (before, after):
        means.append(sum(iou_xyxy(corners(one), t.xyxy) for one, t in zip(regions, truth, strict=True)) / len(truth))
    return means[0], means[1]


def update(editor: Editor) -> None:
    """Save what was changed of a submitted annotation."""
    with editor.page.expect_response(lambda one: "/annotations" in one.url and one.request.method == "PATCH"):
        editor.page.locator("button", has_text="Update").last.click()


def test_a_class_and_then_all_boxes_are_tightened_in_place(stack: DemoStack, page: Any, prompted: Prompted) -> None:
    from playwright.sync_api import expect

    drawn, task = prompted.drawn(), new_task(prompted.studio, prompted.project, prompted.data)
    prompted.studio.annotations.create(id=task, result=drawn)
    editor = Editor(page, stack, task, prompted.project)
    enter(editor, "/tweak Bicycle")
    assert editor.suggested == []
    expect(editor.strip()).to_contain_text("has no class 'Bicycle'; it has Disc")
    label = max(sorted({one.label for one in prompted.truth}), key=[one.label for one in prompted.truth].count)
    enter(editor, f"/tweak {label.lower()}")
    of_class = {one["id"] for one in editor.suggested}
    assert of_class and of_class <= {one["id"] for one in drawn if one["value"]["rectanglelabels"] == [label]}
    editor.accept()
    enter(editor, "/tweak all")
    expect(editor.strip()).to_contain_text(f"of {len(drawn)} boxes tightened")
    moved = of_class | {one["id"] for one in editor.suggested}
    editor.accept()
    update(editor)
    after = prompted.stored(task)
    assert [one["id"] for one in after] == [one["id"] for one in drawn], "each box once, under its own id"
    for old, new, one in zip(drawn, after, prompted.truth, strict=True):
        if old["id"] in moved:
            assert iou_xyxy(corners(new), one.xyxy) > iou_xyxy(corners(old), one.xyxy), one
        else:
            assert corners(new) == pytest.approx(corners(old), abs=0.01)
        assert new["value"]["rectanglelabels"] == [one.label]
    before, now = better(drawn, after, prompted.truth)
    print(f"\n{len(moved)} of {len(drawn)} boxes: IoU with the truth {before:.3f} → {now:.3f}")
    assert now > before + 0.05 and len(moved) >= 0.5 * len(drawn)


def test_boxes_of_a_prediction_are_tightened_before_anything_is_submitted(
    stack: DemoStack, page: Any, prompted: Prompted
) -> None:
    """What a person gets who opens a task with imported boxes and begins an annotation of them."""
    drawn, task = prompted.drawn(), new_task(prompted.studio, prompted.project, prompted.data)
    prompted.studio.predictions.create(task=task, result=drawn, score=0.5, model_version="imported")
    prompted.studio.projects.update(prompted.project, model_version="imported", show_collab_predictions=True)
    editor = Editor(page, stack, task, prompted.project)
    enter(editor, "/tweak")
    assert editor.suggested and {one["id"] for one in editor.suggested} <= {one["id"] for one in drawn}
    editor.accept()
    editor.submit()
    after = prompted.stored(task)
    assert [one["id"] for one in after] == [one["id"] for one in drawn]
    before, now = better(drawn, after, prompted.truth)
    assert now > before + 0.05


def test_of_two_annotations_the_open_one_is_meant(stack: DemoStack, page: Any, prompted: Prompted) -> None:
    """A request does not say which is open: the draft does, once it has the words."""
    from playwright.sync_api import expect

    drawn, task = prompted.drawn(), new_task(prompted.studio, prompted.project, prompted.data)
    other = [{**one, "id": f"other-{one['id']}"} for one in drawn]
    prompted.studio.annotations.create(id=task, result=drawn)
    second = prompted.studio.annotations.create(id=task, result=other)
    editor = Editor(page, stack, task, prompted.project)
    open_ids = {one["id"] for one in editor.regions()}
    with editor.draft_with("/tweak all"):
        enter(editor, "/tweak all")
        assert editor.suggested == []
        expect(editor.strip()).to_contain_text("type it again")
    enter(editor, "/tweak all")
    assert editor.suggested and {one["id"] for one in editor.suggested} <= open_ids
    editor.accept()
    update(editor)
    results = {one.id: one.result for one in prompted.studio.annotations.list(id=task)}
    untouched, changed = (drawn, other) if open_ids == {one["id"] for one in other} else (other, drawn)
    names = [[one["id"] for one in result if one["type"] == "rectanglelabels"] for result in results.values()]
    assert sorted(names) == sorted([[one["id"] for one in untouched], [one["id"] for one in changed]])
    kept = next(result for result in results.values() if result[0]["id"] == untouched[0]["id"])
    assert [one["value"] for one in kept] == [one["value"] for one in untouched], second.id
