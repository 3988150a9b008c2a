"""Segmenters for each request: loaded when first asked for, released when idle, never in each other's way."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tator_ml.engine.client import EngineClient
from tator_ml.engine.engine import Engine
from tator_ml.engine.loading import load_engine
from tator_ml.engine.messages import EngineError, Status, Superseded
from tator_ml.engine.models import Segmenters
from tator_ml.engine.segmenters import UnknownSegmenter
from tator_ml.engine.segmenters.base import Segmenter
from tator_ml.engine.segmenters.weights import WeightsMissing
from tator_ml.engine.server import EngineServer
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings
from tests.engine.material import OBJECT, Bright, ask, engine_of, several, store_of
from tests.engine.test_warm import until
from tests.wire.conftest import scene_bytes


class Loader:
    """Loads what it is told, as slowly as told; remembers."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.slow: dict[str, threading.Event] = {}
        self.errors: dict[str, Exception] = {}

    def __call__(self, name: str) -> Segmenter:
        self.asked.append(name)
        if name in self.slow:
            self.slow[name].wait(10)
        if name in self.errors:
            raise self.errors[name]
        return Bright(f"{name}-1")


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def engine(tmp_path: Path, loader: Loader) -> Iterator[Engine]:
    made = engine_of(tmp_path, Segmenters("main", loader))
    yield made
    made.close()


@pytest.fixture
def image(tmp_path: Path) -> str:
    return store_of(tmp_path).put(scene_bytes())


def test_each_request_gets_the_segmenter_that_it_names(engine: Engine, loader: Loader, image: str) -> None:
    versions = [engine.answer(ask(image, segmenter=name)).model_version for name in (None, "other", "main", "other")]
    assert versions == ["main-1+no-head", "other-1+no-head", "main-1+no-head", "other-1+no-head"]
    assert loader.asked == ["main", "other"]
    status = engine.status()
    assert status.encodings == 2 and {one.segmenter for one in status.warm} == {"main-1", "other-1"}
    assert [(one.name, one.version, one.loaded) for one in status.segmenters] == [
        ("main", "main-1", True),
        ("other", "other-1", True),
    ]
    assert status.version_with(None, "other") == "other-1+no-head"
    assert status.version_with("head-3", "other") == "other-1+head-3"
    assert status.version_with("head-3", "never") == "never+head-3"
    assert status.version_with("head-3") == "main-1+head-3" and status.version_with(None) == "main-1+no-head"


def test_preloads_for_a_segmenter(engine: Engine, loader: Loader, image: str) -> None:
    engine.answer(ask(image))
    assert engine.warm(image) and engine.warm(image, "other", "7")
    until(lambda: engine.status().encodings == 2)
    assert engine.answer(ask(image, segmenter="other")).came_from == "memory"
    assert engine.keep(image, "third") and not engine.keep(image, "other")
    assert engine.segmenter_version("third") == "third-1" and engine.segmenter_version() == "main-1"


def test_loading_holds_nobody_else_up_and_happens_once(engine: Engine, loader: Loader, image: str) -> None:
    engine.answer(ask(image))
    loader.slow["other"] = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(engine.answer, ask(image, segmenter="other")) for _ in range(6)]
        until(lambda: "other" in loader.asked)
        begun = time.monotonic()
        assert engine.answer(ask(image)).model_version == "main-1+no-head"
        assert engine.answer(ask(image, segmenter="third")).model_version == "third-1+no-head"
        assert time.monotonic() - begun < 2 and not any(one.done() for one in waiting)
        loader.slow["other"].set()
        assert {one.result(5).model_version for one in waiting} == {"other-1+no-head"}
    assert loader.asked == ["main", "other", "third"]


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (WeightsMissing("Put x.pt into /models: it is not there."), WeightsMissing, r"Put x\.pt"),
        (ImportError("No module named 'sam2'"), EngineError, "needs a package .*sam2"),
        (RuntimeError("driver too old"), EngineError, "cannot be loaded: driver too old"),
    ],
)
def test_a_failure_is_a_sentence_and_not_kept(
    engine: Engine, loader: Loader, image: str, error: Exception, kind: type[TatorError], says: str
) -> None:
    loader.errors["other"] = error
    with pytest.raises(kind, match=says):
        engine.answer(ask(image, segmenter="other"))
    assert engine.status().waiting["click"] == 0
    loader.errors.clear()
    assert engine.answer(ask(image, segmenter="other")).found[0] is not None


def test_idle_ones_give_their_memory_back_and_come_again(tmp_path: Path, loader: Loader, image: str) -> None:
    engine = engine_of(tmp_path, Segmenters("main", loader), segmenter_idle_seconds=1.5)
    engine.answer(ask(image))
    engine.answer(ask(image, segmenter="other"))
    released = weakref.ref(engine._segmenters.get("main"))
    engine._segmenters.get("other")
    until(lambda: not engine.status().segmenters[0].loaded)
    until(lambda: (gc.collect(), released())[1] is None)
    status = engine.status()
    assert [one.loaded for one in status.segmenters] == [False, True], "the one used last stays"
    assert {one.segmenter for one in status.warm} == {"other-1"}
    assert status.model_version == "main-1+no-head", "which is known without loading it"
    assert engine.answer(ask(image)).came_from == "disk" and loader.asked == ["main", "other", "main"]
    engine.close()


def test_one_that_is_used_is_not_released() -> None:
    segmenters, _ = several("a", "b", "c")
    segmenters.get("a")
    assert segmenters.release(60) == []
    assert segmenters.release(0, keep="b") == ["a-1", "c-1"]
    assert [one.loaded for one in segmenters.status()] == [False, True, False]
    assert segmenters.release(0) == []


def test_one_that_was_given_stays() -> None:
    segmenters = Segmenters("a", lambda name: Bright(f"{name}-1"), given=Bright("given-1"))
    segmenters.get("b")
    assert segmenters.release(0) == [] and segmenters.get().version == "given-1"


def test_a_newer_click_replaces_an_older_one_in_the_engine(engine: Engine, tmp_path: Path, image: str) -> None:
    main = engine._segmenters.get()
    assert isinstance(main, Bright)
    main.gate.clear()
    other = store_of(tmp_path).put(scene_bytes(size_wh=(300, 200)))
    with ThreadPoolExecutor(4) as pool:
        busy = pool.submit(engine.answer, ask(other))
        until(lambda: engine.status().waiting["click"] == 0 and engine._last_click is not None)
        older = pool.submit(engine.answer, ask(image, task="1/7", prompt_ids=("a",)))
        until(lambda: engine.status().waiting["click"] == 1)
        beside = pool.submit(engine.answer, ask(image, task="1/8", prompt_ids=("a",)))
        until(lambda: engine.status().waiting["click"] == 2)
        newer = pool.submit(engine.answer, ask(image, task="1/7", prompt_ids=("a", "b")))
        with pytest.raises(Superseded, match="newer click"):
            older.result(5)
        main.gate.set()
        assert newer.result(5).found[0] and beside.result(5).found[0] and busy.result(5)
    assert engine.status().superseded == 1 and engine.status().clicks == 3


def test_published_segmenters_beside_one_that_was_given(tmp_path: Path, image: str) -> None:
    settings = Settings(home=tmp_path, segmenter="sam2-tiny", offline=True)
    engine = Engine(settings, store_of(tmp_path), Bright(), None)
    assert engine.answer(ask(image, segmenter="starter")).model_version.startswith("starter-")
    assert engine.answer(ask(image, segmenter="sam2-tiny")).model_version == "bright-1+no-head"
    with pytest.raises(UnknownSegmenter, match="choose one of"):
        engine.answer(ask(image, segmenter="sam0"))
    with pytest.raises(WeightsMissing, match=r"Put mobile_sam\.pt into"):
        engine.answer(ask(image, segmenter="mobile_sam"))
    engine.close()


def test_everything_goes_over_the_socket(tmp_path: Path, loader: Loader, image: str) -> None:
    settings = Settings(home=tmp_path)
    loader.errors["broken"] = WeightsMissing("Put x.pt into /models: it is not there.")
    server = EngineServer(settings, lambda: engine_of(tmp_path, Segmenters("main", loader)))
    threading.Thread(target=server.serve, daemon=True).start()
    client = EngineClient(settings, store_of(tmp_path))
    answer = client.answer(ask(image, segmenter="other", task="1/2", prompt_ids=("x",), label="Star"))
    assert answer.model_version == "other-1+no-head" and answer.came_from == "encoded"
    assert answer.found[0] is not None and answer.found[0].xyxy == OBJECT
    assert client.warm(image, "main", "7") and client.drop_preloads({image}, "7") == 0
    until(lambda: client.status().encodings == 2)
    assert client.keep(image, "third") and not client.keep(image, "third")
    assert client.segmenter_version("third") == "third-1"
    client.pin([image], 30)
    client.set_budget(10**6)
    with pytest.raises(EngineError, match=r"Put x\.pt"):
        client.answer(ask(image, segmenter="broken"))
    status = client.status()
    assert isinstance(status, Status) and status.budget_bytes == 10**6 and len(status.warm) == 1
    assert status.warm[0].pinned and status.misses == 1 and status.process_bytes > 0
    assert {one.name for one in status.segmenters} == {"main", "other", "third"}
    client.close()
    server.close()


def test_keep_sends_the_picture_to_an_engine_elsewhere(tmp_path: Path, loader: Loader) -> None:
    settings, mine = Settings(home=tmp_path), store_of(tmp_path / "mine")
    server = EngineServer(settings, lambda: engine_of(tmp_path / "theirs", Segmenters("main", loader)))
    threading.Thread(target=server.serve, daemon=True).start()
    client = EngineClient(settings, mine)
    assert client.keep(mine.put(scene_bytes()))
    client.close()
    server.close()


def test_superseding_is_said_over_the_socket(tmp_path: Path, image: str) -> None:
    slow = Bright()
    slow.gate.clear()
    settings = Settings(home=tmp_path)
    server = EngineServer(settings, lambda: engine_of(tmp_path, slow))
    threading.Thread(target=server.serve, daemon=True).start()
    client = EngineClient(settings, store_of(tmp_path))
    client.warm(image)
    until(lambda: client.status().waiting["preload"] == 0)
    with ThreadPoolExecutor(2) as pool:
        older = pool.submit(client.answer, ask(image, task="1/7", prompt_ids=("a",)))
        until(lambda: client.status().waiting["click"] == 1)
        newer = pool.submit(client.answer, ask(image, task="1/7", prompt_ids=("a", "b")))
        with pytest.raises(Superseded):
            older.result(5)
        slow.gate.set()
        assert newer.result(5).found[0]
    client.close()
    server.close()


def test_the_engine_of_the_settings(tmp_path: Path, image: str) -> None:
    engine = load_engine(Settings(home=tmp_path, torch_threads=1))
    answer = engine.answer(ask(image))
    assert answer.model_version.startswith("starter-") and answer.found[0] is not None
    engine.close()
    again = load_engine(Settings(home=tmp_path, torch_threads=1))
    from_disk = again.answer(ask(image))
    assert from_disk.came_from == "disk" and from_disk.found[0] is not None
    assert from_disk.found[0].xyxy == pytest.approx(answer.found[0].xyxy, abs=1)
    again.close()
