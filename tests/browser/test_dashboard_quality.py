"""What a person in the editor does with suggestions, as the quality pages tell it; over the real stack.

With ``TATOR_PICTURES=1`` a project of six weeks is made up and the documentation's screenshots are taken of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from demo.pictures import SETTINGS, TruthObject, classes
from demo.stack import DemoStack
from label_config.build import build
from tator_ml.learning.stores import project_choices
from tator_ml.quality.comparison import NO_ASSISTANCE, Comparison
from tator_ml.quality.store import quality_store
from tator_sdk.auth import LabelStudioAuth
from tator_sdk.connect import Connection, strip_url
from tator_sdk.studio import open_studio

from .dashboard import check_accessible, check_fits_a_phone, opened, picture
from .editor import BOX, POINT, Editor, loosely, objects_of
from .made_up_quality import make_up

pytestmark = [pytest.mark.browser, pytest.mark.studio, pytest.mark.timeout(400)]

SHOTS = bool(os.environ.get("TATOR_PICTURES"))  # tests see no variable of ours


@dataclass
class Labelled:
    """A project of its own, one task of it with three objects."""

    project: int
    studio: Any
    task: int
    objects: list[TruthObject]


@pytest.fixture(scope="module")
def own(stack: DemoStack) -> Iterator[Labelled]:
    studio: Any = open_studio(stack.settings)
    scene, objects = max(
        ((task, objects_of(stack, task)) for task in studio.tasks.list(project=stack.project)),
        key=lambda pair: len(pair[1]),
    )
    project = int(studio.projects.create(title="Quality", label_config="<View/>").id)
    strip = strip_url(stack.settings, stack.settings.backend_url, project)
    studio.projects.update(project, label_config=build("boxes", classes(), strip, project=project))
    for _ in Connection(stack.settings, project, stack.settings.backend_url).run():
        pass
    studio.projects.import_tasks(id=project, request=[{"data": scene.data}])
    (task,) = studio.tasks.list(project=project)
    project_choices(stack.settings).choose(project, assists=("refine",))  # a head's opinion would change labels
    yield Labelled(project, studio, int(task.id), objects[:3])
    studio.projects.delete(project)


def figure(tab: Any, title: str) -> str:
    return str(tab.locator(".card", has=tab.locator("h2", has_text=title)).first.inner_text())


def wait_for(there: Callable[[], bool]) -> None:
    until = time.monotonic() + 180
    while not there():
        assert time.monotonic() < until
        time.sleep(0.2)


def shows(tab: Any, title: str, said: str) -> None:
    """Wait until a card says something: webhooks are followed behind their answers."""
    for _ in range(40):
        if said in figure(tab, title):
            return
        time.sleep(0.25)
        tab.reload()
    raise AssertionError((title, said, figure(tab, title)))


def test_what_a_person_does_is_what_the_page_says(stack: DemoStack, page: Any, own: Labelled) -> None:
    first, second, third = own.objects
    editor = Editor(page, stack, own.task, own.project)
    editor.tool(POINT)
    editor.label(first.label, POINT)
    editor.click(first.point)
    editor.accept()
    editor.tool(BOX)
    editor.label(second.label, BOX)
    editor.drag(loosely(second.xyxy))
    editor.accept()
    editor.label(third.label, BOX)
    editor.drag(loosely(third.xyxy, 0.12))
    editor.reject()
    editor.submit()

    address = f"{stack.settings.backend_url}/tator/quality"
    with opened(page, f"{address}?project={own.project}") as tab:
        shows(tab, "Used as it was", "2 of 3 suggestions")
        assert "33 %" in figure(tab, "Not used")

        (annotation,) = own.studio.annotations.list(id=own.task)
        result = annotation.result
        kept = next(item for item in result if item["id"] == editor_id(result, second))
        kept["value"]["width"] /= 2  # an edit: half of it is left
        own.studio.annotations.update(id=annotation.id, result=result)
        shows(tab, "Edited", "mean IoU 0.50")
        shows(tab, "Used as it was", "1 of 3 suggestions")

        tab.get_by_role("link", name=second.label, exact=True).first.click()
        tab.wait_for_selector(".crops img")
        tab.wait_for_function("() => [...document.images].every((one) => one.complete && one.naturalWidth > 0)")
        check_accessible(tab)
        check_fits_a_phone(tab)
        tab.go_back()

        tab.get_by_role("button", name="Read the project again").click()
        tab.wait_for_selector(".flash.good")
        store = quality_store(stack.settings)
        wait_for(lambda: store.read_at(own.project) is not None)
        store.close()
        tab.reload()
        assert "was last read" in tab.inner_text("main")
        shows(tab, "Edited", "mean IoU 0.50")  # read from Label Studio it is the same
        check_accessible(tab)
        check_fits_a_phone(tab)


def editor_id(result: list[dict[str, Any]], one: TruthObject) -> str:
    """Id of the stored region that lies around an object."""
    x = 100 * (one.xyxy[0] + one.xyxy[2]) / 2 / SETTINGS.size_wh[0]
    y = 100 * (one.xyxy[1] + one.xyxy[3]) / 2 / SETTINGS.size_wh[1]

    def holds(value: dict[str, Any]) -> bool:
        inside_x = value["x"] < x < value["x"] + value["width"]
        return bool(inside_x and value["y"] < y < value["y"] + value["height"])

    return next(str(item["id"]) for item in result if holds(item["value"]))


def test_a_comparison_from_the_page_to_the_labelling_screen(stack: DemoStack, page: Any, own: Labelled) -> None:
    address = f"{stack.settings.backend_url}/tator/quality/comparison"
    with opened(page, f"{address}?project={own.project}") as tab:
        tab.fill("#share", "50")
        tab.get_by_role("button", name="Look what would be drawn").click()
        tab.wait_for_selector("text=tasks that nobody has labelled")
        check_accessible(tab)
        check_fits_a_phone(tab)
        tab.get_by_role("button", name="Begin the comparison").click()
        tab.wait_for_selector("text=Going on since")
        chosen = project_choices(stack.settings).get(own.project).comparison
        assert chosen is not None and chosen.share == 0.5

        seed = next(seed for seed in range(99) if Comparison(0.5, seed, 0).draws(own.task))  # have this task drawn
        project_choices(stack.settings).choose(own.project, comparison=Comparison(0.5, seed, chosen.since))
        editor = Editor(page, stack, own.task, own.project)
        editor.strip().get_by_text(NO_ASSISTANCE).wait_for()
        item = {
            "id": "p1", "from_name": "point", "to_name": "image", "type": "keypointlabels", "original_width": 640,
            "original_height": 480, "value": {"x": 50, "y": 50, "width": 1, "keypointlabels": [own.objects[0].label]},
        }  # fmt: skip
        (backend,) = own.studio.ml.list(project=own.project)
        key = stack.settings.label_studio_api_key
        assert key is not None
        answer = httpx.post(
            f"{stack.studio.url}/api/ml/{backend.id}/interactive-annotating",
            json={"task": own.task, "context": {"result": [item]}},
            auth=LabelStudioAuth(stack.studio.url, key.get_secret_value()), timeout=60,
        )  # fmt: skip
        assert answer.json()["data"]["result"] == []
        tab.get_by_role("button", name="End the comparison").click()
        tab.wait_for_selector("text=Begin one")
        check_accessible(tab)
    assert project_choices(stack.settings).get(own.project).comparison is None


def test_doubtful_labels(stack: DemoStack, page: Any, own: Labelled) -> None:
    shots = SHOTS
    project = make_up(stack, own.project + 1000, weeks=6 if shots else 1)
    address = f"{stack.settings.backend_url}/tator/quality"
    with opened(page, f"{address}/labels?project={project}") as tab:
        tab.wait_for_function("() => [...document.images].slice(0, 4).every((one) => one.naturalWidth > 100)")
        before = tab.locator(".crops li").count()
        check_accessible(tab)
        check_fits_a_phone(tab)
        if shots:
            picture(tab, "dashboard-labels")
        tab.get_by_role("button", name="It is right").first.click()
        tab.get_by_role("button", name="Undo").click()
        tab.wait_for_selector("text=in the queue again")
        assert tab.locator(".crops li").count() == before
        if shots:
            for name, where in {
                "quality": f"?project={project}",
                "quality-examples": f"/examples?project={project}&outcome=edited",
                "comparison": f"/comparison?project={project}",
            }.items():
                tab.goto(f"{address}{where}")
                tab.wait_for_timeout(1500)
                picture(tab, f"dashboard-{name}")
