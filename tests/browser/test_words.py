"""Words typed into the real editor: boxes with their labels appear, are accepted, and are stored once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from demo.pictures import SETTINGS, classes, truth_of
from demo.stack import DemoStack
from label_config.build import build
from tator_ml.learning.stores import project_choices
from tator_ml.vlm.prompts import compose
from tator_ml.vlm.registry import qwen_registry
from tator_sdk.connect import Connection, strip_url
from tator_sdk.geometry import iou_xyxy
from tator_sdk.studio import open_studio
from tests.studio.test_words import add_model
from tests.taught_qwen import STYLE, teach
from training.qwen.conversations import Conversation
from training.samples import Labelled, Sample

from .editor import Editor, corners
from .test_accepting import new_task
from .test_commands import Prompted, enter

pytestmark = [pytest.mark.browser, pytest.mark.studio, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def asked(stack: DemoStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prompted]:
    """A project whose model knows one scene by heart, and that scene."""
    studio: Any = open_studio(stack.settings)
    data = min(
        (task.data for task in studio.tasks.list(project=stack.project)),
        key=lambda one: len(truth_of(stack.folder / Path(one["image"]).name)),
    )
    picture = stack.folder / Path(data["image"]).name
    truth, pixels = truth_of(picture), np.asarray(Image.open(picture).convert("RGB"))
    objects = tuple(Labelled(one.label, one.xyxy, one.point) for one in truth)
    sample = Sample(picture.name, lambda: pixels, SETTINGS.size_wh, objects)
    lesson = Conversation(sample, compose("", classes(), STYLE, "bbox"), "bbox", objects)
    registry = qwen_registry(stack.settings)
    model = add_model(registry, teach(tmp_path_factory.mktemp("taught"), [lesson]), "qwen2_5_vl")
    project = int(studio.projects.create(title="Words", label_config="<View/>").id)
    strip = strip_url(stack.settings, stack.settings.backend_url, project)
    config = build("all", classes(), strip, project=project)
    config = config.replace('model_mode="bbox"', 'model_mode="bbox" model_keep_prompt="true"')
    studio.projects.update(project, label_config=config)
    for _ in Connection(stack.settings, project, stack.settings.backend_url).run():
        pass
    project_choices(stack.settings).choose(project, assists=("refine",))
    registry.activate(project, model, "person")
    yield Prompted(project, studio, data, truth)
    studio.projects.delete(project)


def test_typed_words_become_boxes_that_are_stored_once(stack: DemoStack, page: Any, asked: Prompted) -> None:
    from playwright.sync_api import expect

    task = new_task(asked.studio, asked.project, asked.data)
    editor = Editor(page, stack, task, asked.project)
    enter(editor, "all")
    wanted = Counter(one.label for one in asked.truth)
    assert Counter(one["value"]["rectanglelabels"][0] for one in editor.suggested) == wanted
    expect(editor.strip()).to_contain_text(f"{wanted[asked.truth[0].label]} {asked.truth[0].label}")
    editor.accept()
    with editor.draft_with(editor.regions()[0]["id"]):
        pass
    enter(editor, "all")
    assert editor.suggested == [], "what was accepted is not offered again"
    expect(editor.strip()).to_contain_text("stood already")
    editor.submit()
    stored = asked.stored(task)
    assert Counter(one["value"]["rectanglelabels"][0] for one in stored) == wanted
    for one in asked.truth:
        same = [corners(each) for each in stored if each["value"]["rectanglelabels"] == [one.label]]
        assert max(iou_xyxy(one.xyxy, each) for each in same) > 0.85, one


def test_kept_words_are_shown_on_the_strip_and_a_click_forgets_them(
    stack: DemoStack, page: Any, asked: Prompted
) -> None:
    from playwright.sync_api import expect

    task = new_task(asked.studio, asked.project, asked.data)
    editor = Editor(page, stack, task, asked.project)
    enter(editor, "all")
    kept = page.frame_locator("iframe[src*='/strip']").locator("#words")
    expect(kept).to_contain_text("all")
    kept.click()
    expect(kept).to_be_hidden()
    assert project_choices(stack.settings).get(asked.project).words is None
