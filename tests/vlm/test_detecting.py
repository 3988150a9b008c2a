"""Questions in words through the engine: real tiny models that were taught what to answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText

from tator_ml.engine.client import EngineClient
from tator_ml.engine.engine import Engine
from tator_ml.engine.lanes import Lane
from tator_ml.engine.messages import (
    Ask,
    DetectAsk,
    EngineError,
    OutOfMemory,
    Prompt,
    Stopped,
    Superseded,
    UnknownImage,
)
from tator_ml.engine.server import EngineServer
from tator_ml.engine.vlms import Vlms
from tator_ml.engine.wire import DETECT_ASK, send
from tator_ml.images.decode import decode_image
from tator_ml.images.store import ImageStore
from tator_ml.vlm.loading import load_vlm
from tator_ml.vlm.model import Vlm, _Writing
from tator_ml.vlm.registry import RunMetadata, qwen_registry
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings
from tests.vlm.conftest import teach
from tests.wire.conftest import BrightSegmenter, scene_bytes
from training.qwen.tiny import FAMILIES, Family

WIDTH, HEIGHT = 320, 240
CARS = "Find the cars."
CAR = '{"bbox_2d": [28, 14, 98, 63], "label": "car"}'
SAID = {
    "qwen2_5_vl": f'[{CAR}, {CAR}, {{"bbox_2d": [80, 50, 900, 900], "label": "bus"}}, {{"bbox_2d": [7, 7, 7, 9]}}]',
    "qwen3_vl": f'[{CAR}, {CAR}, {{"bbox_2d": [900, 500, 1200, 1000], "label": "bus"}}, {{"point_2d": [1001, 3]}}]',
}
CLICK = Prompt(((128.0, 96.0),), (True,))


def scene() -> bytes:
    return scene_bytes(size_wh=(WIDTH, HEIGHT))


@pytest.fixture(scope="session")
def taught(tiny: dict[Family, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    pixels = cv2.imdecode(np.frombuffer(scene(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1].copy()
    root = tmp_path_factory.mktemp("taught")
    return {family: teach(tiny[family], root / family, {CARS: SAID[family]}, pixels) for family in FAMILIES}


both_families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture
def family() -> Family:
    """Of the model that is asked, where a test does not try both: what goes on around it is the same."""
    return "qwen2_5_vl"


@pytest.fixture
def settings(tmp_path: Path, family: Family, taught: dict[Family, Path]) -> Settings:
    return Settings(home=tmp_path, offline=True, qwen_model_name=str(taught[family]))


@pytest.fixture
def store(settings: Settings) -> ImageStore:
    return ImageStore(settings.home / "images", 10**9)


@pytest.fixture
def engine(settings: Settings, store: ImageStore) -> Iterator[Engine]:
    made = Engine(settings, store, BrightSegmenter(), None)
    yield made
    made.close()


@pytest.fixture
def ask(store: ImageStore) -> DetectAsk:
    return DetectAsk(store.put(scene()), "", CARS)


def load_model(engine: Engine, ask: DetectAsk) -> None:
    """Ask for a few words, after which the model is there."""
    engine.detect(replace(ask, max_new_tokens=2))


def slow_layers(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.003) -> threading.Event:
    """As if the model were large; the event says that it has begun."""
    begun = threading.Event()
    before = _Writing.between_layers

    def between(self: _Writing) -> None:
        begun.set()
        time.sleep(seconds)
        before(self)

    monkeypatch.setattr(_Writing, "between_layers", between)
    return begun


@both_families
def test_words_become_boxes_in_pixels(engine: Engine, ask: DetectAsk, family: Family) -> None:
    made = engine.detect(ask)
    assert (made.text, made.ended, made.complete) == (SAID[family], "end", True)
    assert made.size_wh == (WIDTH, HEIGHT) and made.model_version.startswith(family)
    car, bus = made.found
    assert (car.label, bus.label) == ("car", "bus")
    assert car.xyxy and bus.xyxy
    if family == "qwen3_vl":
        assert np.allclose(car.xyxy, (8.96, 3.36, 31.36, 15.12)) and bus.xyxy == (288, 120, 320, 240)
    else:  # the processor makes 112 x 84 of 320 x 240 here
        assert np.allclose(car.xyxy, (80, 40, 280, 180)) and bus.xyxy[2:] == (WIDTH, HEIGHT)
    assert made.problems == ("1 object lies outside of the picture or without area.",)
    assert engine.detect(replace(ask, max_results=1)).found == (car,)
    (status,) = engine.status().vlms
    assert (status.version, status.loaded, status.writing) == (made.model_version, True, None)
    assert status.nbytes > 10**6


@both_families
def test_an_answer_that_is_cut_is_read_as_far_as_it_goes(
    engine: Engine, ask: DetectAsk, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = engine.detect(ask).tokens
    made = engine.detect(replace(ask, max_new_tokens=whole // 2))
    assert made.ended == "length" and not made.complete and made.tokens == whole // 2
    assert [one.label for one in made.found] == ["car"]
    slow_layers(monkeypatch, 0.01)
    late = engine.detect(replace(ask, seconds=1.0))
    assert late.ended == "time" and not late.complete and SAID[family].startswith(late.text)


def test_clicks_on_the_same_picture_go_first(
    engine: Engine, ask: DetectAsk, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_model(engine, ask)
    engine.answer(Ask(ask.image, (CLICK,)))
    begun, order = slow_layers(monkeypatch), list[str]()
    with ThreadPoolExecutor() as pool:
        words = pool.submit(lambda: (engine.detect(ask), order.append("words")))
        assert begun.wait(10)
        for _ in range(5):
            engine.answer(Ask(ask.image, (CLICK,)))
            order.append("click")
        assert engine.warm(store.put(scene_bytes(size_wh=(100, 80))))
        while engine.status().encodings < 2:
            time.sleep(0.005)
        order.append("preload")
        assert engine.status().vlms[0].writing is not None
        words.result(30)
    assert order == ["click"] * 5 + ["preload", "words"]


def test_a_person_goes_before_a_job(engine: Engine, ask: DetectAsk, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = engine.detect(ask)
    begun, order = slow_layers(monkeypatch), list[str]()
    with ThreadPoolExecutor() as pool:
        job = pool.submit(lambda: (engine.detect(replace(ask, lane="batch")), order.append("job"))[0])
        assert begun.wait(10)
        person = pool.submit(lambda: (engine.detect(ask), order.append("person"))[0])
        assert job.result(60).text == person.result(60).text == whole.text
    assert order == ["person", "job"]


def test_a_newer_question_of_the_task_supersedes(
    engine: Engine, ask: DetectAsk, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_model(engine, ask)
    begun = slow_layers(monkeypatch, 0.01)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(engine.detect, replace(ask, task="1/7"))
        assert begun.wait(10)
        other = pool.submit(engine.detect, replace(ask, task="1/8"))
        while engine.status().waiting["words"] < 1:
            time.sleep(0.001)
        second = pool.submit(engine.detect, replace(ask, task="1/7"))
        with pytest.raises(Superseded):
            first.result(5)
        monkeypatch.undo()
        assert second.result(30).found and other.result(30).found


def test_a_question_is_taken_back(engine: Engine, ask: DetectAsk, monkeypatch: pytest.MonkeyPatch) -> None:
    load_model(engine, ask)
    begun = slow_layers(monkeypatch, 0.02)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(engine.detect, replace(ask, task="1/7"))
        assert begun.wait(10)
        assert engine.stop_detecting("1/7") == 1 and engine.stop_detecting("") == 0
        with pytest.raises(Stopped):
            running.result(5)
        gone = pool.submit(engine.detect, ask, lambda: True)
        with pytest.raises(Stopped):
            gone.result(5)
    until = time.monotonic() + 5
    while engine.status().vlms[0].writing is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert engine.status().vlms[0].writing is None


def test_no_answer_in_time(engine: Engine, ask: DetectAsk, monkeypatch: pytest.MonkeyPatch) -> None:
    load_model(engine, ask)
    slow_layers(monkeypatch, 0.2)
    with pytest.raises(EngineError, match="did not write a word in time"):
        engine.detect(replace(ask, seconds=0.3))
    gate = threading.Event()
    engine._lanes.submit(Lane.CLICK, lambda: gate.wait(10))  # the device is taken
    with pytest.raises(EngineError, match="did not write a word in time"):
        engine.detect(replace(ask, seconds=0.3))
    assert engine.status().waiting["words"] == 0
    gate.set()


def test_what_is_idle_is_given_back(settings: Settings, store: ImageStore, ask: DetectAsk) -> None:
    settings = settings.model_copy(update={"segmenter_idle_seconds": 0.2})
    engine = Engine(settings, store, BrightSegmenter(), None)
    try:
        engine.detect(ask)
        until = time.monotonic() + 10
        while engine.status().vlms[0].loaded and time.monotonic() < until:
            time.sleep(0.05)
        assert not engine.status().vlms[0].loaded
        assert engine.detect(ask).found
    finally:
        engine.close()


def test_loading_that_takes_long_goes_on(settings: Settings, store: ImageStore, ask: DetectAsk) -> None:
    gate, loads = threading.Event(), list[str]()

    def load(name: str) -> Vlm:
        loads.append(name)
        gate.wait(10)
        return load_vlm(settings, name, "cpu")

    engine = Engine(settings, store, BrightSegmenter(), None, vlms=Vlms(load))
    try:
        for _ in range(2):
            with pytest.raises(EngineError, match="still being loaded"):
                engine.detect(replace(ask, seconds=0.2))
        gate.set()
        assert engine.detect(ask).found and len(loads) == 1
    finally:
        engine.close()


def test_one_model_at_a_time_stays_in_memory(
    settings: Settings, store: ImageStore, ask: DetectAsk, tiny: dict[Family, Path], family: Family
) -> None:
    engine = Engine(settings, store, BrightSegmenter(), None)
    try:
        own = engine.detect(ask).model_version
        assert engine.detect(replace(ask, model=str(tiny[family]), max_new_tokens=4)).model_version != own
        assert sorted(one.loaded for one in engine.status().vlms) == [False, True]
    finally:
        engine.close()


def test_short_memory(
    engine: Engine, ask: DetectAsk, monkeypatch: pytest.MonkeyPatch, settings: Settings, store: ImageStore
) -> None:
    whole = engine.detect(ask)
    sides = list[int]()
    answer = Vlm.answer

    def greedy(self: Vlm, question: object, *rest: object) -> object:
        sides.append(question.input_wh[0])  # type: ignore[attr-defined]
        if len(sides) < 3:
            raise MemoryError("out of memory")
        return answer(self, question, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Vlm, "answer", greedy)
    made = engine.detect(ask)
    assert made.model_version == whole.model_version and sides[2] < sides[0] == sides[1]
    assert engine.status().memory_steps["smaller picture for words"] == 1
    monkeypatch.setattr(
        Vlm, "answer", lambda *_: [].__getitem__(10**30) if False else (_ for _ in ()).throw(MemoryError())
    )
    with pytest.raises(OutOfMemory, match="smaller model in words"):
        engine.detect(ask)
    monkeypatch.undo()
    loads = list[str]()

    def load(name: str) -> Vlm:
        loads.append(name)
        if len(loads) == 1:
            raise MemoryError
        return load_vlm(settings, name, "cpu")

    other = Engine(settings, store, BrightSegmenter(), None, vlms=Vlms(load))
    try:
        assert other.detect(ask).text == whole.text and len(loads) == 2
    finally:
        other.close()


def test_errors_are_sentences(engine: Engine, ask: DetectAsk, store: ImageStore) -> None:
    with pytest.raises(UnknownImage):
        engine.detect(replace(ask, image="0" * 64))
    for model, said in [
        ("qwen-p1-1-abcdef", "copy the model's folder"),
        ("/nowhere/at-all", "no folder"),
        ("Q/none", "downloads"),
    ]:
        with pytest.raises(TatorError, match=said):
            engine.detect(replace(ask, model=model))
    with pytest.raises(TatorError, match="too narrow"):
        engine.detect(replace(ask, image=store.put(scene_bytes(size_wh=(2100, 10)))))
    assert engine.detect(ask).found, "the engine goes on"


def test_over_the_wire(
    engine: Engine, ask: DetectAsk, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = ImageStore(tmp_path / "web", 10**9)
    image = elsewhere.put(scene_bytes(size_wh=(200, 150)))
    server = EngineServer(settings, lambda: engine)
    threading.Thread(target=server.serve, daemon=True).start()
    client = EngineClient(settings, elsewhere)
    try:
        assert client.detect(ask).found == engine.detect(ask).found
        assert client.detect(replace(ask, image=image, max_new_tokens=5)).size_wh == (200, 150)
        (near,), (far,) = engine.status().vlms, client.status().vlms
        assert replace(far, idle_seconds=near.idle_seconds) == near
        assert client.stop_detecting("1/7") == 0
        with pytest.raises(EngineError, match="no folder"):
            client.detect(replace(ask, model="/nowhere/at-all"))
        # whoever asked is gone: so is the question
        begun = slow_layers(monkeypatch, 0.05)
        connection = client._connection(fresh=True)
        send(connection, {"call": "detect", "ask": DETECT_ASK.dump_python(ask, mode="json")})
        assert begun.wait(10)
        connection.close()
        until = time.monotonic() + 5
        while client.status().vlms[0].writing is not None and time.monotonic() < until:
            time.sleep(0.01)
        assert time.monotonic() < until
    finally:
        client.close()
        server.close()


@both_families
def test_a_registered_run_is_asked_with_its_adapter(
    settings: Settings, store: ImageStore, ask: DetectAsk, taught: dict[Family, Path], family: Family
) -> None:
    """As the training leaves it: its own id in the version, and pictures as large as they were in training."""
    settings = settings.model_copy(update={"qwen_model_name": "/nowhere/at-all"})
    base = AutoModelForImageTextToText.from_pretrained(taught[family])
    torch.manual_seed(2)
    tuned = get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"]))  # as at its start: changes nothing
    about = RunMetadata(
        id="", label="Cars", classes=("car",), model_id=str(taught[family]), created_at="", latest_checkpoint="adapter",
        source_dataset="a test", system_prompt="", system_prompt_noise=0.0, dataset_context="", use_qlora=False,
        max_image_dim=60, max_detections_per_sample=200,
    )  # fmt: skip
    entry = qwen_registry(settings).add(about, {}, lambda folder: tuned.save_pretrained(folder / "adapter"))
    engine = Engine(settings, store, BrightSegmenter(), None)
    try:
        made = engine.detect(replace(ask, model=entry.id, max_new_tokens=8))
        assert made.model_version.startswith(f"{entry.id}-") and made.tokens == 8
        whole = load_vlm(settings, str(taught[family]), "cpu", entry.adapter)
        assert whole.generate(decode_image(scene(), 10**8), "", CARS, 300).text == SAID[family]
        small = load_vlm(settings, str(taught[family]), "cpu", entry.adapter, entry.id, 60)
        assert small.generate(decode_image(scene(), 10**8), "", CARS, 8).text == made.text
    finally:
        engine.close()
