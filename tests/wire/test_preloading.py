"""Openings, prompts and submissions make the next picture ready; a switch ends that."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tator_ml.preload import Preloader
from tator_ml.worklist import Stretch

from .conftest import PictureServer, Running, scene_bytes


@pytest.fixture
def opening(payload: Any, pictures: PictureServer) -> Any:
    """Opens or prompts on a task of project 1, each with a picture of its own."""
    body = payload("predict_interactive_rectangle_ui")["body"] | {"project": "1.1"}
    body["params"]["context"]["result"][0]["value"].update(x=28.0, y=23.0, width=24.0, height=34.0)
    for number in range(1, 9):
        pictures.answers[f"/{number}.png"] = (200, scene_bytes(size_wh=(640, 480 + number)))

    def request(task: int, context: bool = False) -> Any:
        about = {"id": task, "data": {"image": f"/{task}.png"}, "annotations": [], "drafts": [], "predictions": []}
        return {**body, "tasks": [about], "params": body["params"] if context else {"context": None}}

    return request


@pytest.fixture
def neighbours(running: Running) -> None:
    def look(project: int, task: int) -> Any:
        return Stretch(tuple(range(1, 9)), True, True), {one: {"image": f"/{one}.png"} for one in range(1, 9)}

    services = running.services
    object.__setattr__(services, "preloader", Preloader(services.preloads, services.make_ready, look))


def settled(running: Running) -> int:
    """Pictures that were encoded once nothing is left to do."""
    idle = 0
    for _ in range(500):
        status = running.engine.status()
        idle = idle + 1 if running.services.preloads.idle() and not status.flights else 0
        if idle == 5:
            return status.encodings
        time.sleep(0.01)
    raise AssertionError("it does not come to rest")


def test_the_next_click_finds_its_picture_warm(running: Running, opening: Any, neighbours: None) -> None:
    running.predict(opening(4))
    assert settled(running) == 3, "this, next and previous"
    running.predict(opening(5, context=True))
    assert "in" in (running.services.notices.get(1).last or "") and running.services.notices.get(1).warm
    assert settled(running) == 4, "6 is ready now, 4 was"
    answer = running.client.post(
        "/webhook",
        json={"action": "ANNOTATION_CREATED", "project": {"id": 1}, "task": {"id": 5}, "annotation": {"id": 9}},
    )
    assert answer.status_code == 200 and settled(running) == 4


@pytest.mark.parametrize("where", ["settings", "project"])
def test_switched_off_nothing_is_ready_before_a_click(
    running: Running, opening: Any, neighbours: None, where: str
) -> None:
    if where == "settings":
        object.__setattr__(
            running.services, "settings", running.services.settings.model_copy(update={"preload": False})
        )
    else:
        running.services.projects.choose(1, preload=False)
    running.predict(opening(4))
    assert settled(running) == 0
    running.predict(opening(4, context=True))
    assert settled(running) == 1
    running.services.projects.choose(1, preload=True)
    running.predict(opening(4))
    assert settled(running) == 3


def test_annotators_on_many_tasks_at_once(running: Running, opening: Any, neighbours: None) -> None:
    threads = [threading.Thread(target=running.predict, args=(opening(task),)) for task in (1, 4, 7)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    settled(running)
    warm = {one.image for one in running.engine.status().warm}
    for task in (1, 4, 7):
        assert running.services.images.fetch(f"/{task}.png", task).image in warm
    assert 4 <= settled(running) <= 8
