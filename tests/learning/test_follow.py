"""Annotations are followed: stored, embedded, checked, and learned from in one training a burst."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tator_ml import jobs
from tator_ml.engine.crops import CropRecipe
from tator_ml.images.decode import ImageError
from tator_ml.images.fetch import ImageRef
from tator_ml.learning import follow
from tator_ml.learning.embeddings import EmbeddingCache
from tator_ml.learning.examples import Examples
from tator_ml.learning.follow import Follower
from tator_ml.learning.registry import HeadRegistry
from tator_ml.projects import Projects
from tator_ml.quality.doubts import Doubts
from tator_ml.quality.store import QualityStore
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings
from tests.learning.material import CONFIG, AxisComputes, head_of, image_name, rectangle

PROJECT = 3


class FakePredictions:
    """Label Studio's predictions, which come back with their keys in another order."""

    def __init__(self) -> None:
        self.kept: dict[int, Any] = {}
        self.created = 0
        self.deleted: list[int] = []

    def list(self, task: int) -> list[Any]:
        return [one for one in self.kept.values() if one.task == task]

    def create(self, **values: Any) -> Any:
        self.created += 1
        result = [dict(reversed(list(item.items()))) for item in json.loads(json.dumps(values["result"]))]
        for item in result:
            item["value"] = dict(sorted(item["value"].items(), reverse=True))
        made = SimpleNamespace(**{**values, "result": result, "id": 900 + self.created})
        self.kept[made.id] = made
        return made

    def delete(self, number: int) -> None:
        self.deleted.append(number)
        del self.kept[number]


@dataclass
class Followed:
    """A follower and everything around it."""

    follower: Follower
    examples: Examples
    cache: EmbeddingCache
    registry: HeadRegistry
    projects: Projects
    computes: AxisComputes
    predictions: FakePredictions
    fetched: list[str] = field(default_factory=list)
    started: list[dict[str, Any]] = field(default_factory=list)

    def annotated(self, number: int, *items: Any, task: int = 7, **more: Any) -> None:
        annotation = {"id": number, "task": task, "result": list(items), "updated_at": f"{number}", **more}
        suggested = annotation.pop("suggested", frozenset())
        self.follower.annotated(
            PROJECT, annotation, {"id": task, "data": {"image": f"/data/{task}.png"}}, CONFIG, suggested
        )

    def activate(self, **values: Any) -> str:
        entry = self.registry.add(head_of(**values), PROJECT, {"request": values.pop("request", None)})
        self.registry.activate(PROJECT, entry.version, "gate")
        return entry.version


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Followed]]:
    made: list[Followed] = []

    def build(**settings_values: Any) -> Followed:
        settings = Settings(home=tmp_path, encoder="axis", train_quiet_seconds=0.15, **settings_values)
        examples, cache = Examples(tmp_path / "e.sqlite"), EmbeddingCache(tmp_path / "e", 2**24)
        projects, predictions, computes = Projects(tmp_path / "p"), FakePredictions(), AxisComputes()
        registry = HeadRegistry(tmp_path / "heads", projects)
        fetched: list[str] = []

        class Fetcher:
            def fetch(self, address: str, task_id: int | None = None) -> ImageRef:
                fetched.append(address)
                if "missing" in address:
                    raise ImageError("The picture is not there any more.")
                return ImageRef(image_name(hash(address)), (640, 480))

        follower = Follower(settings, computes, Fetcher(), examples, cache, registry, projects)
        one = Followed(follower, examples, cache, registry, projects, computes, predictions, fetched)
        monkeypatch.setattr(follow, "open_studio", lambda _: SimpleNamespace(predictions=predictions))
        numbers = itertools.count(1)

        def start(_: Settings, kind: str, request: dict[str, Any], **how: Any) -> Any:
            one.started.append({"kind": kind, "request": request, **how})
            return SimpleNamespace(id=f"job-{next(numbers)}", status="queued", attempt=0, request=request)

        monkeypatch.setattr(jobs, "start", start)
        made.append(one)
        return one

    yield build
    for one in made:
        one.follower.close()


@pytest.fixture
def followed(make: Callable[..., Followed]) -> Followed:
    return make(train_after=0)


def test_an_annotation_is_stored_and_embedded_and_its_changes_followed(followed: Followed) -> None:
    followed.annotated(70, rectangle("a", "Car"), rectangle("b", "Van", 50), rectangle("tool", "Tweak"))
    followed.follower.settle()
    assert [(one.region, one.label) for one in followed.examples.of_project(PROJECT)] == [("a", "Car"), ("b", "Van")]
    assert all(one.image for one in followed.examples.of_project(PROJECT)) and len(followed.cache) == 2
    followed.annotated(70, rectangle("a", "Bus"), rectangle("b", "Van", 60))
    followed.annotated(71, rectangle("c", "Car"), task=8)
    followed.follower.settle()
    found = {one.region: one for one in followed.examples.of_project(PROJECT)}
    assert {name: one.label for name, one in found.items()} == {"a": "Bus", "b": "Van", "c": "Car"}
    assert found["b"].xyxy[0] == pytest.approx(384) and len(followed.cache) == 4
    followed.follower.deleted(PROJECT, [70, 99])
    followed.follower.settle()
    assert [one.region for one in followed.examples.of_project(PROJECT)] == ["c"]


def test_a_box_is_embedded_as_the_projects_head_wants_it(followed: Followed) -> None:
    followed.activate(recipe=CropRecipe(0.3, True))
    followed.annotated(70, rectangle("a", "Car"))
    followed.follower.settle()
    assert [(ask.encoder, ask.margin) for ask in followed.computes.asks] == [("axis", 0.3)]


def test_a_skipped_annotation_is_forgotten(followed: Followed) -> None:
    followed.annotated(70, rectangle("a", "Car"))
    followed.annotated(71, rectangle("b", "Car"), was_cancelled=True)
    followed.follower.settle()
    assert [one.region for one in followed.examples.of_project(PROJECT)] == ["a"]
    followed.annotated(70, rectangle("a", "Car"), was_cancelled=True)
    followed.follower.settle()
    assert followed.examples.of_project(PROJECT) == [] and followed.examples.known(PROJECT) == {}


def test_what_cannot_be_followed_stops_nothing(followed: Followed) -> None:
    followed.follower.annotated(PROJECT, {"result": []}, {}, CONFIG)  # no id
    followed.follower.annotated(PROJECT, {"id": 1, "task": 2, "result": []}, {"id": 2}, "<View")
    followed.follower.annotated(
        PROJECT,
        {"id": 5, "task": 9, "result": [rectangle("x", "Car")]},
        {"id": 9, "data": {"image": "/missing"}},
        CONFIG,
    )
    followed.annotated(70, rectangle("a", "Car"))
    followed.follower.settle()
    found = followed.examples.of_project(PROJECT)
    assert [one.region for one in found] == ["x", "a"] and found[0].image is None and found[1].image


# Training


def wait(true: Callable[[], Any], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


def test_a_burst_of_annotations_makes_one_training(make: Callable[..., Followed]) -> None:
    followed = make(train_after=20)

    def some(begin: int) -> None:
        for number in range(begin, begin + 15):
            followed.annotated(number, rectangle("a", "Car"), task=number)

    threads = [threading.Thread(target=some, args=(100 * part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    followed.follower.settle()
    assert followed.examples.news(PROJECT) == 60
    wait(lambda: followed.started)
    time.sleep(0.4)
    (job,) = followed.started
    assert job["kind"] == "clip" and job["unique"] == f"clip:{PROJECT}" and job["project"] == PROJECT
    assert job["request"]["project"] == PROJECT


@pytest.mark.parametrize(
    ("after", "chosen", "trained"), [(3, None, True), (0, None, False), (0, 3, True), (3, 0, False)]
)
def test_how_many_is_enough(make: Callable[..., Followed], after: int, chosen: int | None, trained: bool) -> None:
    followed = make(train_after=after)
    followed.projects.choose(PROJECT, train_after=chosen)
    for number in range(2):
        followed.annotated(number, rectangle("a", "Car"))
    followed.annotated(1, rectangle("a", "Van"))  # the same one again is no third
    followed.follower.settle()
    time.sleep(0.3)
    assert not followed.started
    followed.follower.deleted(PROJECT, [0])  # nor is one of the two that goes
    followed.annotated(2, rectangle("a", "Car"))
    followed.follower.settle()
    if trained:
        wait(lambda: followed.started)
    else:
        time.sleep(0.3)
        assert not followed.started


def test_after_a_training_as_many_again_are_needed(make: Callable[..., Followed]) -> None:
    followed = make(train_after=2)
    for number in range(2):
        followed.annotated(number, rectangle("a", "Car"))
    wait(lambda: len(followed.started) == 1)
    followed.examples.learned(PROJECT, time.time())
    followed.annotated(5, rectangle("a", "Car"))
    followed.follower.settle()
    time.sleep(0.3)
    assert len(followed.started) == 1
    followed.annotated(6, rectangle("a", "Car"))
    wait(lambda: len(followed.started) == 2)
    first, second = (one["request"]["sync"] for one in followed.started)
    assert first and not second, "the first one reads what came while Tator was away"


def test_annotations_that_keep_coming_do_not_put_it_off_for_ever(
    make: Callable[..., Followed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LONGEST_WAIT_SECONDS", 0.5)
    followed = make(train_after=1)
    begun = time.monotonic()
    while not followed.started:
        followed.annotated(1, rectangle("a", "Car"))
        time.sleep(0.05)
        assert time.monotonic() - begun < 3
    assert time.monotonic() - begun > 0.3


def test_the_settings_of_the_active_head_are_kept(followed: Followed) -> None:
    request = {"project": 1, "solver": "saga", "min_per_class": 5, "activation": "never", "images_path": None}
    entry = followed.registry.add(head_of(), PROJECT, {"request": request})
    followed.registry.activate(PROJECT, entry.version, "person")
    assert followed.follower.train(PROJECT) == "job-1"
    made = followed.started[0]["request"]
    assert (made["project"], made["solver"], made["min_per_class"], made["sync"]) == (PROJECT, "saga", 5, True)
    assert made["activation"] == "auto"
    odd = followed.registry.add(head_of(), PROJECT, {"request": {"removed_setting": 1}})
    followed.registry.activate(PROJECT, odd.version, "person")
    followed.follower.train(PROJECT)
    assert followed.started[1]["request"]["solver"] == "lbfgs"


def test_no_redis_is_no_reason_to_stop_following(
    make: Callable[..., Followed], monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = make(train_after=1)
    tried: list[int] = []

    def refuse(*_: Any, **__: Any) -> Any:
        tried.append(1)
        raise TatorError("Redis does not answer.")

    monkeypatch.setattr(jobs, "start", refuse)
    followed.annotated(1, rectangle("a", "Car"))
    wait(lambda: tried)
    followed.annotated(2, rectangle("b", "Car"))
    followed.follower.settle()
    assert len(followed.examples.of_project(PROJECT)) == 2


def test_nothing_is_started_after_the_end(make: Callable[..., Followed]) -> None:
    followed = make(train_after=1)
    followed.annotated(1, rectangle("a", "Car"))
    followed.follower.close()
    time.sleep(0.4)
    assert not followed.started


# Checking


def test_a_disagreement_is_offered_once_and_withdrawn_when_it_is_settled(followed: Followed) -> None:
    version = followed.activate()
    followed.computes.axis = 1  # every box is a Van to the head
    for _ in range(3):
        followed.annotated(70, rectangle("a", "Car"), rectangle("b", "Van", 50))
        followed.follower.settle()
    (offered,) = followed.predictions.kept.values()
    assert followed.predictions.created == 1 and not followed.predictions.deleted
    assert offered.task == 7 and offered.model_version == f"{version}/check"
    assert [(item["id"], item["value"]["rectanglelabels"]) for item in offered.result] == [("a", ["Van"])]
    followed.annotated(70, rectangle("a", "Van"), rectangle("b", "Van", 50))
    followed.follower.settle()
    assert not followed.predictions.kept


def test_another_doubt_takes_the_place_of_an_earlier_one(followed: Followed) -> None:
    followed.activate()
    followed.computes.axis = 1
    followed.predictions.create(task=7, result=[], model_version="relabel-1", score=0.5)
    followed.annotated(70, rectangle("a", "Car"))
    followed.annotated(70, rectangle("a", "Bus"), rectangle("b", "Bus", 50))
    followed.follower.settle()
    kept = {one.model_version.rpartition("/")[2]: len(one.result) for one in followed.predictions.kept.values()}
    assert kept == {"relabel-1": 0, "check": 2}


def test_nothing_stays_of_an_annotation_that_is_gone_before_its_check(followed: Followed, tmp_path: Path) -> None:
    followed.activate()
    followed.computes.axis = 1
    store = QualityStore(tmp_path / "q.sqlite")
    doubts = followed.follower._doubts = Doubts(store)
    gate = threading.Event()
    followed.follower._embedding.submit(gate.wait)  # as long as there is much to embed
    followed.annotated(70, rectangle("a", "Car"))
    followed.annotated(71, rectangle("b", "Car"), task=8)
    followed.follower.deleted(PROJECT, [70])
    followed.annotated(71, rectangle("b", "Car"), task=8, was_cancelled=True)
    followed.follower._order.submit(lambda: None).result()
    gate.set()
    followed.follower.settle()
    assert followed.predictions.created == 2 and not followed.predictions.kept
    assert doubts.open([PROJECT], 10) == []
    store.close()


def test_what_tator_classified_itself_is_not_checked(followed: Followed) -> None:
    followed.activate()
    followed.computes.axis = 1
    followed.annotated(70, rectangle("a", "Car"), suggested=frozenset({"a"}))
    followed.follower.settle()
    assert followed.predictions.created == 0


def test_without_a_head_or_where_it_is_switched_off_nothing_is_checked(make: Callable[..., Followed]) -> None:
    followed = make(train_after=0, check_submitted=False)
    followed.computes.axis = 1
    followed.annotated(70, rectangle("a", "Car"))
    followed.activate()
    followed.annotated(71, rectangle("a", "Car"))
    followed.follower.settle()
    assert followed.predictions.created == 0 and len(followed.cache) == 1
