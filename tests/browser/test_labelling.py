"""A person in Chromium: log in, click an object, add a negative point, draw a box, accept, submit.

What Label Studio stored is read back through its SDK and compared with the scene's truth. With
``DOCS_IMAGES=docs/images`` the screenshots go there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.pictures import SETTINGS, TruthObject, truth_of
from demo.stack import DemoStack
from tator_sdk.geometry import Xyxy, area_xyxy, iou_xyxy
from tator_sdk.studio import open_studio

pytestmark = [pytest.mark.browser, pytest.mark.studio, pytest.mark.timeout(400)]

CHROMIUM = Path("/usr/bin/chromium")
SHOTS = os.environ.get("DOCS_IMAGES")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def page(stack: DemoStack) -> Iterator[Any]:
    """A browser page of somebody who has logged in."""
    if not CHROMIUM.exists():
        pytest.skip("Debian's chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        opened = browser.new_page(viewport={"width": 1440, "height": 1000})
        opened.set_default_timeout(60_000)
        opened.goto(f"{stack.studio.url}/user/login/")
        opened.fill("input[name=email]", stack.studio.account.username)
        opened.fill("input[name=password]", stack.studio.account.password)
        opened.click("button[type=submit]")
        opened.wait_for_url(lambda address: "/user/login" not in address)
        yield opened
        browser.close()


class Editor:
    """Label Studio's editor, driven as a hand would."""

    def __init__(self, page: Any, stack: DemoStack, task: int, folder: Path) -> None:
        self.page = page
        self._folder = folder
        page.goto(f"{stack.studio.url}/projects/{stack.project}/data?task={task}")
        page.wait_for_selector(".konvajs-content canvas")
        page.wait_for_load_state("networkidle")
        page.get_by_test_id("bottombar-auto-annotation-toggle").click()
        page.wait_for_timeout(500)
        box = page.locator(".konvajs-content canvas").first.bounding_box()
        self._origin = (box["x"], box["y"])
        self._scale = box["width"] / SETTINGS.size_wh[0]

    def at(self, point: tuple[float, float]) -> tuple[float, float]:
        """Picture pixels → page pixels."""
        return self._origin[0] + point[0] * self._scale, self._origin[1] + point[1] * self._scale

    def tool(self, name: str) -> None:
        """Pick a smart tool: ``key-point-tool`` or ``rectangle-tool``."""
        self.page.hover(".lsf-toolbar__group > button.lsf-tool_smart")
        self.page.click(f'.lsf-toolbar__smart button[aria-label="{name}"]')

    def label(self, name: str, group: int) -> None:
        """Pick a label of the n-th group of labels."""
        self.page.locator(".lsf-labels").nth(group).locator(".lsf-label", has_text=name).first.click()

    def click(self, point: tuple[float, float], negative: bool = False) -> None:
        """Click on the canvas and wait for the backend's answer."""
        with self.page.expect_response(lambda answer: "interactive-annotating" in answer.url):
            if negative:
                self.page.keyboard.down("Alt")
            self.page.mouse.click(*self.at(point))
            if negative:
                self.page.keyboard.up("Alt")
        self.page.wait_for_timeout(700)

    def drag(self, xyxy: Xyxy) -> None:
        """Draw a box and wait for the backend's answer."""
        with self.page.expect_response(lambda answer: "interactive-annotating" in answer.url):
            self.page.mouse.move(*self.at((xyxy[0], xyxy[1])))
            self.page.mouse.down()
            self.page.mouse.move(*self.at((xyxy[2], xyxy[3])), steps=8)
            self.page.mouse.up()
        self.page.wait_for_timeout(700)

    def accept(self) -> None:
        """Accept what is suggested."""
        self.page.get_by_test_id("bottombar-accept-suggestions-button").click()
        self.page.wait_for_timeout(500)

    def submit(self) -> None:
        """Submit the annotation."""
        with self.page.expect_response(lambda answer: "/annotations" in answer.url and answer.request.method == "POST"):
            self.page.click('[aria-label="Submit current annotation"]')

    def shot(self, name: str) -> None:
        """Take a screenshot."""
        self.page.screenshot(path=str(self._folder / f"{name}.png"))


def chosen_scene(stack: DemoStack, tasks: list[Any]) -> tuple[Any, list[TruthObject]]:
    """The scene with the three largest smallest objects, largest first."""

    def third(task: Any) -> float:
        areas = sorted(area_xyxy(one.xyxy) for one in truth_of(stack.folder / Path(task.data["image"]).name))
        return areas[-3] if len(areas) >= 3 else 0

    task = max(tasks, key=third)
    objects = truth_of(stack.folder / Path(task.data["image"]).name)
    return task, sorted(objects, key=lambda one: -area_xyxy(one.xyxy))


def test_a_person_labels_a_picture(stack: DemoStack, page: Any, tmp_path: Path) -> None:
    folder = Path(SHOTS).resolve() if SHOTS else tmp_path
    studio = open_studio(stack.settings)
    task, (clicked, boxed, other, *_) = chosen_scene(stack, list(studio.tasks.list(project=stack.project)))
    editor = Editor(page, stack, task.id, folder)
    editor.tool("key-point-tool")
    editor.label(clicked.label, group=0)
    editor.click(clicked.point)
    editor.shot("click")
    editor.label(clicked.label, group=0)
    editor.click(other.point, negative=True)
    editor.shot("negative-point")
    editor.accept()
    editor.tool("rectangle-tool")
    editor.label(boxed.label, group=1)
    x0, y0, x1, y1 = boxed.xyxy
    wide, high = 0.08 * (x1 - x0), 0.08 * (y1 - y0)
    editor.drag((x0 - wide, y0 - high, x1 + wide, y1 + high))
    editor.shot("loose-box")
    editor.accept()
    editor.shot("accepted")
    editor.submit()

    (annotation,) = studio.annotations.list(id=task.id)
    regions = [region for region in annotation.result if region["type"] == "rectanglelabels"]
    kinds = [region["type"] for region in annotation.result]
    assert len(regions) == 2, f"exactly one region for each object, not {kinds}"
    boxes = [(_box(region), region["value"]["rectanglelabels"]) for region in regions]
    for truth in (clicked, boxed):
        best, labels = max(boxes, key=lambda pair: iou_xyxy(pair[0], truth.xyxy))
        assert iou_xyxy(best, truth.xyxy) > 0.7, (truth, boxes)
        assert labels == [truth.label]


def _box(region: Any) -> Xyxy:
    width, height = SETTINGS.size_wh
    value = region["value"]
    x0, y0 = value["x"] * width / 100, value["y"] * height / 100
    return x0, y0, x0 + value["width"] * width / 100, y0 + value["height"] * height / 100
