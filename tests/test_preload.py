"""What is made ready behind answers: in which order, what is dropped, what Label Studio is asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import tator_ml.preload
from tator_ml.preload import AFTER, BEFORE, Neighbours, Preloader, Preloads
from tator_ml.worklist import Stretch
from tator_sdk.settings import Settings
from tator_sdk.studio import StudioError


def until(true: Callable[[], Any], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def preloads() -> Iterator[Preloads]:
    made = Preloads(threads=1)
    yield made
    made.close()


class Held:
    """Work that is in the only thread's hands until it is let go."""

    def __init__(self, preloads: Preloads) -> None:
        self.go = threading.Event()
        began = threading.Event()
        preloads.submit(lambda: (began.set(), self.go.wait(5))[0])
        assert began.wait(5)


def test_what_is_superseded_before_it_began_is_dropped(preloads: Preloads) -> None:
    held, done = Held(preloads), list[str]()
    for name in "ab":
        preloads.replace(7, [lambda name=name: done.append(name)] * 2)  # type: ignore[misc]
    preloads.replace(8, [lambda: done.append("other")])
    assert preloads.waiting == 3 and preloads.replace(9, []) == 0
    held.go.set()
    until(preloads.idle)
    assert done == ["other", "b", "b"], "the newest plan first, and nothing of the first"


def test_too_much_is_dropped_and_an_error_ends_nothing(preloads: Preloads) -> None:
    held = Held(preloads)
    taken = [preloads.submit(lambda: 1 / 0) for _ in range(40)]
    assert taken.count(True) == 32
    held.go.set()
    until(preloads.idle)
    assert preloads.submit(lambda: None)


class Toy:
    """A project of tasks 1 to 50 behind a preloader."""

    def __init__(self, preloads: Preloads, look: bool = True) -> None:
        self.preloads = preloads
        self.made: list[tuple[int, bool]] = []
        self.looks: list[int] = []
        self.fails = False
        self.surprise: Exception | None = None
        self.preloader = Preloader(preloads, self._warm, self._look if look else None)

    def _warm(self, project: int, task: int, address: str, looked_at: bool) -> None:
        assert (project, address) == (3, f"/{task}.png")
        self.made.append((task, looked_at))

    def _look(self, project: int, task: int) -> tuple[Stretch, dict[int, Any]]:
        self.looks.append(task)
        if self.fails:
            raise StudioError("not there")
        if self.surprise:
            raise self.surprise
        tasks = range(max(1, task - 6), min(50, task + 18) + 1)
        return Stretch(tuple(tasks), tasks[0] == 1, tasks[-1] == 50), {one: {"image": f"/{one}.png"} for one in tasks}

    def open(self, task: int, opened: bool = True) -> list[tuple[int, bool]]:
        """What is made ready because of it."""
        self.made.clear()
        self.preloader.looked_at(3, task, [f"/{task}.png"], lambda data: [data["image"]], opened)
        until(self.preloads.idle)
        return list(self.made)


def test_this_then_next_then_previous_each_once(preloads: Preloads) -> None:
    toy = Toy(preloads)
    assert toy.open(10) == [(10, True), (11, False), (9, False)] and toy.looks == [10]
    assert toy.open(11) == [(11, True), (12, False)], "the other is warm already"
    assert toy.open(12, opened=False) == [(13, False)], "the prompt itself makes its own picture ready"
    assert toy.open(12, opened=False) == [] and toy.looks == [10]
    toy.made.clear()
    toy.preloader.submitted(3, 12)
    until(preloads.idle)
    assert toy.made == []


def test_backwards(preloads: Preloads) -> None:
    toy = Toy(preloads)
    toy.open(30)
    toy.open(29)
    assert toy.open(28) == [(28, True), (27, False)]


def test_what_was_not_begun_is_dropped_when_somebody_goes_on(preloads: Preloads) -> None:
    toy = Toy(preloads)
    toy.open(10)
    held = Held(preloads)
    for task in (20, 21, 22):
        toy.preloader.looked_at(3, task, [f"/{task}.png"], lambda data: [data["image"]], True)
    toy.made.clear()
    held.go.set()
    until(preloads.idle)
    assert toy.made[:2] == [(22, True), (23, False)] and 19 not in [task for task, _ in toy.made]


def test_label_studio_is_asked_seldom(preloads: Preloads, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = Toy(preloads)
    for task in (1, 40, 45, 50):
        toy.open(task)
    assert toy.looks == [1], "once in two seconds"
    toy.fails = True
    monkeypatch.setattr(tator_ml.preload, "LOOKUP_SECONDS", 0.0)
    toy.open(49)
    toy.open(48)
    assert len(toy.looks) == 2, "an answer that failed is not asked for again at once"


def test_a_surprise_is_not_the_end_of_asking(preloads: Preloads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tator_ml.preload, "LOOKUP_SECONDS", 0.0)
    toy = Toy(preloads)
    toy.surprise = ValueError("an odd answer")
    toy.open(10)
    toy.surprise = None
    assert (11, False) in toy.open(10) and toy.looks == [10, 10]


def test_without_label_studio_tasks_of_requests_are_neighbours(preloads: Preloads) -> None:
    toy = Toy(preloads, look=False)
    assert toy.open(10) == [(10, True)]
    toy.open(11)
    assert toy.open(12) == [(12, True)]


def test_neighbours_come_from_two_small_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def listed(**how: Any) -> Any:
        asked.append(how)
        about = json.loads(how["query"])
        (one,) = about["filters"]["items"]
        everything = [number for number in range(1, 30) if number % 2]  # others were deleted
        if one["operator"] == "less":
            found = sorted((number for number in everything if number < one["value"]), reverse=True)
        else:
            found = [number for number in everything if number >= one["value"]]
        items = [SimpleNamespace(id=number, data={"image": f"/{number}"}) for number in found[: how["page_size"]]]
        return SimpleNamespace(items=items)

    studio = SimpleNamespace(tasks=SimpleNamespace(list=listed))
    monkeypatch.setattr(tator_ml.preload, "open_studio", lambda _: studio)
    stretch, data = Neighbours(Settings(label_studio_api_key="k"))(3, 5)
    assert stretch == Stretch(tuple(range(1, 30, 2)), first=True, last=True)
    assert data[7] == {"image": "/7"} and len(asked) == 2
    assert {one["page_size"] for one in asked} == {BEFORE, AFTER + 1}
