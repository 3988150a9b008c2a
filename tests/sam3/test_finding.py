"""Concepts through the engine: shared embedding, clicks in between, superseded, taken back, over the wire."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tator_ml.engine.client import EngineClient
from tator_ml.engine.concepts import Concept, ConceptAsk, ConceptsFound, Instance
from tator_ml.engine.engine import Engine
from tator_ml.engine.lanes import Lane
from tator_ml.engine.messages import Ask, EngineError, OutOfMemory, Prompt, Stopped, Superseded, UnknownImage
from tator_ml.engine.models import Segmenters
from tator_ml.engine.segmenters.base import Candidates
from tator_ml.engine.segmenters.sam3 import Sam3Segmenter, load
from tator_ml.engine.server import EngineServer
from tator_ml.images.decode import ImageError
from tator_ml.images.store import ImageStore
from tator_sdk.settings import Settings
from tests.engine.material import Bright, store_of
from tests.sam3.engine_material import drawn_folder, picture

PHRASES = tuple(Concept(phrase) for phrase in ("red circle", "blue square", "green star"))
EVERYTHING = 0.0
SIZE = (150, 90)


def png(seed: int = 0) -> bytes:
    return cv2.imencode(".png", picture(seed, SIZE)[..., ::-1])[1].tobytes()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Sam3Segmenter:
    return load(drawn_folder(tmp_path_factory.mktemp("finding")), "cpu", "sam3")


class Watched(Sam3Segmenter):
    """A view of the module's model that counts, waits at a gate, and is short of memory as often as told."""

    def __init__(self, model: Sam3Segmenter) -> None:
        super().__init__(model.sam, model.version)
        self.encoded = 0
        self.found: list[list[str]] = []
        self.short = 0
        self.arrived = threading.Semaphore(0)
        self.gate: threading.Semaphore | None = None
        real, self._concepts.find = self._concepts.find, self._find  # type: ignore[method-assign]
        self._real = real

    def parts(self) -> list[Any]:  # hooks would stay in the module's model
        return []

    def encode(self, image: Any) -> Any:
        self.encoded += 1
        return super().encode(image)

    def _find(self, seen: Any, concepts: Any, masks: bool) -> list[Candidates]:
        self.arrived.release()
        if self.gate is not None:
            assert self.gate.acquire(timeout=20)
        if self.short:
            self.short -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.found.append([one.phrase for one in concepts])
        return self._real(seen, concepts, masks)


@pytest.fixture
def sam(model: Sam3Segmenter) -> Watched:
    return Watched(model)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return store_of(tmp_path)


@pytest.fixture
def engine(tmp_path: Path, store: ImageStore, sam: Watched) -> Iterator[Engine]:
    made = Engine(Settings(_env_file=None, home=tmp_path, segmenter="sam3"), store, sam, None)
    yield made
    made.close()


class Asking:
    """A call on a thread of its own, and what came of it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.answer: Any = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(call,))
        self._thread.start()

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self.answer = call()
        except BaseException as error:
            self.error = error

    def done(self) -> Asking:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def alone(sam: Sam3Segmenter, seed: int, concept: Concept) -> Candidates:
    finder, embedding = sam.concepts(), sam.encode(picture(seed, SIZE))
    return finder.find(finder.look(embedding, True), [concept], True)[0]


def test_instances_of_all_concepts_best_first(engine: Engine, store: ImageStore, sam: Watched) -> None:
    answer = engine.find_concepts(ConceptAsk(store.put(png()), PHRASES, threshold=EVERYTHING, limit=1000))
    assert answer.size_wh == SIZE and answer.segmenter == sam.version and not answer.was_warm and answer.more == 0
    scores = [one.score for one in answer.found]
    assert scores == sorted(scores, reverse=True) and {one.concept for one in answer.found} == {0, 1, 2}
    expected = alone(sam, 0, PHRASES[1])
    mine = [one for one in answer.found if one.concept == 1]
    order = torch.argsort(expected.scores, descending=True)[: len(mine)].tolist()
    assert len(mine) == len(expected.scores), "none of these lies outside"
    for one, row in zip(mine, order, strict=True):
        assert one.score == pytest.approx(float(expected.scores[row]))
        limits = np.array([*SIZE, *SIZE], np.float32)
        assert one.xyxy == pytest.approx(expected.xyxy[row].numpy().clip(0, limits).tolist(), abs=1e-3)
        assert expected.masks is not None
        whole = sam.concepts().full_size(expected.masks[row][None], SIZE)[0] > 0.5
        if one.mask is None:
            assert not bool(whole.any())
        else:
            assert np.array_equal(one.mask.unpack(SIZE), whole.numpy()) and one.mask.quality == one.score


def test_threshold_limit_and_boxes_alone(engine: Engine, store: ImageStore, sam: Watched) -> None:
    image = store.put(png())
    everything = engine.find_concepts(ConceptAsk(image, PHRASES, threshold=EVERYTHING, limit=1000)).found
    middle = everything[len(everything) // 2].score
    some = engine.find_concepts(ConceptAsk(image, PHRASES, threshold=middle, limit=4, masks=False))
    over = sum(one.score > middle for one in everything)
    assert (len(some.found), some.more, some.was_warm) == (4, over - 4, True)
    for one, known in zip(some.found, everything, strict=False):
        assert (one.concept, one.mask) == (known.concept, None)
        assert one.score == pytest.approx(known.score) and one.xyxy == pytest.approx(known.xyxy, abs=1e-3)
    assert engine.find_concepts(ConceptAsk(image, PHRASES, threshold=1.0)).found == ()


def test_boxes_are_clipped_and_slivers_dropped(
    engine: Engine, store: ImageStore, sam: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = [[-20, -5, 40, 30], [10, 10, 10.5, 60], [200, 0, 300, 50], [20, 20, 60, 60], [math.nan, 0, 40, 40]]
    scores = [0.9, 0.8, 0.7, 0.6, math.nan]
    masks = torch.zeros(5, 8, 8)
    masks[0] = 1
    made = Candidates(torch.tensor(scores), torch.tensor(boxes), masks)
    monkeypatch.setattr(sam, "_real", lambda *_: [made])
    answer = engine.find_concepts(ConceptAsk(store.put(png()), PHRASES[:1]))
    assert [(round(one.score, 3), one.xyxy) for one in answer.found] == [
        (0.9, (0.0, 0.0, 40.0, 30.0)),
        (0.6, (20.0, 20.0, 60.0, 60.0)),
    ]
    assert answer.more == 0 and answer.found[1].mask is None
    assert answer.found[0].mask is not None and bool(answer.found[0].mask.unpack(SIZE).all())


def test_clicks_and_concepts_share_one_encoding(engine: Engine, store: ImageStore, sam: Watched) -> None:
    image = store.put(png())
    click = Ask(image, (Prompt(((40.0, 30.0),), (True,)),))
    engine.find_concepts(ConceptAsk(image, PHRASES))
    assert engine.answer(click).was_warm
    other = store.put(png(1))
    engine.answer(Ask(other, click.prompts))
    exemplar = Concept("", ((20.0, 10.0, 90.0, 70.5),), ((100.0, 40.0, 140.0, 80.0),))
    found = engine.find_concepts(ConceptAsk(other, (exemplar,), threshold=EVERYTHING))
    assert found.was_warm and found.found and sam.encoded == engine.status().encodings == 2
    status = engine.status()
    assert (status.clicks, status.misses) == (2, 1), "what is told of clicks is of clicks alone"
    assert all(one.pinned for one in status.warm)


def test_from_the_disk_after_a_restart(tmp_path: Path, store: ImageStore, model: Sam3Segmenter) -> None:
    image, scores = store.put(png()), []
    for encoded in (1, 0):
        sam = Watched(model)
        engine = Engine(Settings(_env_file=None, home=tmp_path, segmenter="sam3"), store, sam, None)
        answer = engine.find_concepts(ConceptAsk(image, PHRASES, threshold=EVERYTHING))
        scores.append([one.score for one in answer.found])
        engine.close()
        assert (sam.encoded, answer.was_warm) == (encoded, not encoded)
    assert scores[0] == pytest.approx(scores[1], abs=0.02)


def test_a_click_waits_for_one_concept_at_most(engine: Engine, store: ImageStore, sam: Watched) -> None:
    image = store.put(png())
    sam.gate = threading.Semaphore(0)
    asking = Asking(lambda: engine.find_concepts(ConceptAsk(image, PHRASES)))
    assert sam.arrived.acquire(timeout=20)  # at the first concept
    clicking = Asking(lambda: engine.answer(Ask(image, (Prompt(((40.0, 30.0),), (True,)),))))
    wait_until(lambda: engine.status().waiting["click"] == 1)
    sam.gate.release()  # the first goes on; the second stays at the gate
    assert sam.arrived.acquire(timeout=20)
    assert clicking.done().answer.was_warm, "answered on the same picture while two concepts are still to come"
    assert len(sam.found) == 1 and asking.answer is None
    sam.gate.release(2)
    assert asking.done().error is None and len(sam.found) == 3


def test_words_go_before_a_jobs_concepts_and_behind_clicks(engine: Engine, store: ImageStore, sam: Watched) -> None:
    sam.gate = threading.Semaphore(0)
    job = Asking(lambda: engine.find_concepts(ConceptAsk(store.put(png()), PHRASES, lane="batch")))
    assert sam.arrived.acquire(timeout=20)
    person = Asking(lambda: engine.find_concepts(ConceptAsk(store.put(png(1)), (Concept("mine"),))))
    wait_until(lambda: engine.status().waiting["words"] == 1)
    sam.gate.release(4)
    assert person.done().error is job.done().error is None
    assert [one[0] for one in sam.found] == ["red circle", "mine", "blue square", "green star"]


def test_a_newer_question_of_the_task_takes_the_olders_place(engine: Engine, store: ImageStore, sam: Watched) -> None:
    image = store.put(png())
    sam.gate = threading.Semaphore(0)
    first, second, third, other = (
        ConceptAsk(image, PHRASES if name == "first" else (Concept(name),), task=task)
        for name, task in (("first", "1/7"), ("second", "1/7"), ("third", "1/7"), ("other", "1/8"))
    )
    running = Asking(lambda: engine.find_concepts(first))
    assert sam.arrived.acquire(timeout=20)
    waiting = Asking(lambda: engine.find_concepts(second))
    assert isinstance(running.done().error, Superseded), "whoever asked is told at once"
    wait_until(lambda: engine.status().waiting["words"] == 1)
    last, beside = (Asking(lambda ask=ask: engine.find_concepts(ask)) for ask in (third, other))
    assert isinstance(waiting.done().error, Superseded)
    sam.gate.release(9)
    assert last.done().error is beside.done().error is None
    assert sorted(sam.found) == [["other"], ["red circle"], ["third"]], "what was superseded ended after its concept"


def test_questions_are_taken_back(engine: Engine, store: ImageStore, sam: Watched) -> None:
    image = store.put(png())
    sam.gate = threading.Semaphore(0)
    asking = Asking(lambda: engine.find_concepts(ConceptAsk(image, PHRASES, task="1/7")))
    assert sam.arrived.acquire(timeout=20)
    assert engine.stop_detecting("1/8") == 0 and engine.stop_detecting("1/7") == 1
    assert isinstance(asking.done().error, Stopped)
    sam.gate.release(9)
    gone = threading.Event()
    sam.gate = threading.Semaphore(0)
    left = Asking(lambda: engine.find_concepts(ConceptAsk(image, PHRASES, lane="batch"), gone.is_set))
    assert sam.arrived.acquire(timeout=20)
    gone.set()
    assert isinstance(left.done().error, Stopped)
    sam.gate.release(9)
    wait_until(lambda: len(sam.found) == 2)
    engine.answer(Ask(image, (Prompt(((40.0, 30.0),), (True,)),)))  # the device is free again
    assert len(sam.found) == 2


def test_a_question_has_its_time(engine: Engine, store: ImageStore, sam: Watched) -> None:
    sam.gate = threading.Semaphore(0)
    asking = Asking(lambda: engine.find_concepts(ConceptAsk(store.put(png()), PHRASES, seconds=0.2)))
    assert sam.arrived.acquire(timeout=20)
    time.sleep(0.3)
    sam.gate.release(9)
    error = asking.done().error
    assert type(error) is EngineError and "did not find everything in time" in str(error)
    assert len(sam.found) == 1


def test_too_little_memory(engine: Engine, store: ImageStore, sam: Watched) -> None:
    image = store.put(png())
    expected = engine.find_concepts(ConceptAsk(image, PHRASES, threshold=EVERYTHING))
    sam.concepts().together = 3
    sam.found.clear()
    sam.short = 2  # the batch, and the batch again after others gave up what they held
    answer = engine.find_concepts(ConceptAsk(image, PHRASES, threshold=EVERYTHING))
    assert [one[0] for one in sam.found] == ["red circle", "blue square", "green star"]
    assert engine.status().memory_steps["concepts one by one"] == 1
    assert [one.score for one in answer.found] == pytest.approx([one.score for one in expected.found])
    sam.short = 1000
    with pytest.raises(OutOfMemory, match="not enough memory"):
        engine.find_concepts(ConceptAsk(image, PHRASES))


def test_at_last_on_the_cpu(tmp_path: Path, store: ImageStore, model: Sam3Segmenter) -> None:
    sam = Watched(model)
    holder = Segmenters("sam3", lambda _: sam, load_on_cpu=lambda _: model)
    engine = Engine(Settings(_env_file=None, home=tmp_path), store, holder, None)
    try:
        sam.short = 1000
        answer = engine.find_concepts(ConceptAsk(store.put(png()), PHRASES, threshold=EVERYTHING))
        assert len(answer.found) == 20 and engine.status().memory_steps["on the CPU"] == 3
    finally:
        engine.close()


NOWHERE = ((500.0, 500.0, 600.0, 600.0),)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"concepts": ()}, "at least one phrase"),
        ({"concepts": (Concept("x"),) * 201}, "200 at most"),
        ({"concepts": (Concept("  "),)}, "Type a phrase"),
        ({"concepts": (Concept("", (), ((1.0, 1.0, 9.0, 9.0),)),)}, "Type a phrase"),
        ({"concepts": (Concept("", NOWHERE),)}, "no place on the picture"),
        ({"concepts": (Concept("x", ((0.0, math.nan, 1.0, 1.0),)),)}, "no place on the picture"),
        ({"threshold": 1.5}, "0 to 1"),
        ({"threshold": math.nan}, "0 to 1"),
        ({"limit": 0}, "at least 1"),
    ],
)
def test_questions_that_make_no_sense(
    engine: Engine, store: ImageStore, changes: dict[str, Any], complaint: str
) -> None:
    ask = ConceptAsk(**{"image": store.put(png()), "concepts": PHRASES, **changes})
    with pytest.raises(EngineError, match=complaint):
        engine.find_concepts(ask)


def test_a_phrase_with_a_box_outside_is_the_phrase(engine: Engine, store: ImageStore) -> None:
    image = store.put(png())
    both = [
        engine.find_concepts(ConceptAsk(image, (one,), threshold=EVERYTHING, masks=False)).found
        for one in (Concept(" red circle ", NOWHERE, NOWHERE), Concept("red circle"))
    ]
    assert [(one.score, one.xyxy) for one in both[0]] == [(one.score, one.xyxy) for one in both[1]]


def test_pictures_that_are_none_and_segmenters_that_do_not_understand(tmp_path: Path, store: ImageStore) -> None:
    engine = Engine(Settings(_env_file=None, home=tmp_path), store, Bright(), None)
    try:
        with pytest.raises(EngineError, match=r"starter does not understand phrases; choose sam3 .*`tator segmenter"):
            engine.find_concepts(ConceptAsk(store.put(png()), PHRASES))
    finally:
        engine.close()


def test_unknown_and_damaged_pictures(engine: Engine, store: ImageStore) -> None:
    with pytest.raises(UnknownImage):
        engine.find_concepts(ConceptAsk("0" * 64, PHRASES))
    with pytest.raises(ImageError):
        engine.find_concepts(ConceptAsk(store.put(b"no picture"), PHRASES))
    assert engine.status().waiting == dict.fromkeys([lane.name.lower() for lane in Lane], 0)


def rows(found: ConceptsFound) -> list[tuple[Any, ...]]:
    def row(one: Instance) -> tuple[Any, ...]:
        return one.concept, one.score, one.xyxy, one.mask and (one.mask.xywh, one.mask.bits, one.mask.quality)

    return [row(one) for one in found.found]


def test_over_the_wire(tmp_path: Path, model: Sam3Segmenter) -> None:
    """A real server in a home of its own: pictures are sent when it lacks them, answers are the same."""
    away = Settings(_env_file=None, home=tmp_path / "away")
    sam = Watched(model)
    server = EngineServer(away, lambda: Engine(away, store_of(away.home), sam, None))
    threading.Thread(target=server.serve, daemon=True).start()
    near = store_of(tmp_path / "near")
    client = EngineClient(away, near)
    try:
        image = near.put(png())
        ask = ConceptAsk(image, (PHRASES[0], Concept("", ((20.0, 10.0, 90.0, 70.5),))), threshold=EVERYTHING, limit=9)
        answer = client.find_concepts(ask)
        assert server._engine is not None
        again = server._engine.find_concepts(ask)
        assert rows(answer) == rows(again) and (answer.more, answer.size_wh) == (again.more, again.size_wh)
        assert not answer.was_warm and again.was_warm and any(one.mask for one in answer.found)
        with pytest.raises(EngineError, match="Type a phrase"):
            client.find_concepts(ConceptAsk(image, (Concept(),)))
        sam.gate = threading.Semaphore(0)
        while sam.arrived.acquire(blocking=False):
            pass
        asking = Asking(lambda: client.find_concepts(ConceptAsk(image, PHRASES, task="3/4")))
        assert sam.arrived.acquire(timeout=20)
        assert client.stop_detecting("3/4") == 1
        assert isinstance(asking.done().error, Stopped)
        sam.gate.release(9)
    finally:
        client.close()
        server.close()
