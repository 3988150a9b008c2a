"""A person in Chromium: log in, click an object, add a negative point, draw a box, accept, submit.

What Label Studio stored is read back through its SDK and compared with the scene's truth. With
``DOCS_IMAGES=docs/images`` the screenshots go there.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from demo.stack import DemoStack
from tator_sdk.geometry import iou_xyxy
from tator_sdk.studio import open_studio

from .editor import BOX, POINT, Editor, corners, loosely, objects_of

pytestmark = [pytest.mark.browser, pytest.mark.studio, pytest.mark.timeout(400)]

SHOTS = os.environ.get("DOCS_IMAGES")


def test_a_person_labels_a_picture(stack: DemoStack, page: Any, tmp_path: Path) -> None:
    folder = Path(SHOTS).resolve() if SHOTS else tmp_path
    studio = open_studio(stack.settings)
    tasks: Any = studio.tasks.list(project=stack.project)
    scenes = [(task, objects_of(stack, task)) for task in tasks]
    task, (clicked, boxed, other, *_) = max(scenes, key=lambda pair: len(pair[1]))
    editor = Editor(page, stack, task.id)

    def shot(name: str) -> None:
        with Image.open(io.BytesIO(page.screenshot())) as taken:
            taken.convert("RGB").quantize(256).save(folder / f"{name}.png", optimize=True)

    editor.tool(POINT)
    editor.label(clicked.label, POINT)
    editor.click(clicked.point)
    shot("click")
    editor.label(clicked.label, POINT)
    editor.click(other.point, "Alt")
    shot("negative-point")
    editor.accept()
    editor.tool(BOX)
    editor.label(boxed.label, BOX)
    editor.drag(loosely(boxed.xyxy))
    shot("loose-box")
    editor.accept()
    shot("accepted")
    editor.submit()

    (annotation,) = studio.annotations.list(id=task.id)
    assert [region["type"] for region in annotation.result] == ["rectanglelabels"] * 2, "one region for each object"
    for region, truth in zip(annotation.result, (clicked, boxed), strict=True):
        assert iou_xyxy(corners(region), truth.xyxy) > 0.7, (region, truth)
        assert region["value"]["rectanglelabels"] == [truth.label]
