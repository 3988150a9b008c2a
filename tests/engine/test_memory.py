"""Short of memory: what is given up, in which order, and that the click is answered."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tator_ml.engine.engine import Engine
from tator_ml.engine.memory import Ladder, device_bytes, is_out_of_memory
from tator_ml.engine.messages import EngineError, OutOfMemory, Prompt, Verdict
from tator_ml.engine.segmenters.base import Segmenter
from tator_sdk.geometry import Xyxy
from tests.engine.material import BOX, OBJECT, Bright, ask, engine_of, several, store_of
from tests.wire.conftest import ToyClassifier, scene_bytes


@pytest.mark.parametrize(
    ("error", "means"),
    [
        (torch.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (np._core._exceptions._ArrayMemoryError((10**9,), np.dtype("f8")), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("shapes differ"), False),
        (EngineError("out of memory"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_errors_that_mean_it(error: BaseException, means: bool) -> None:
    assert is_out_of_memory(error) is means


def test_torch_itself_is_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55)
    assert is_out_of_memory(caught.value)


def no_relief(segmenter: str) -> Iterator[str]:
    yield from ()


def test_what_a_failed_attempt_held_is_free_before_the_next() -> None:
    held: list[weakref.ref[object]] = []

    class Large:
        pass

    def work() -> str:
        large = Large()
        if held:
            assert held[0]() is None, "the first attempt's is still there"
            return "done"
        held.append(weakref.ref(large))
        raise torch.OutOfMemoryError("x")

    gc.disable()
    try:
        assert Ladder(no_relief).run("s", work) == "done"
    finally:
        gc.enable()


def test_other_errors_pass() -> None:
    ladder = Ladder(no_relief)
    with pytest.raises(ZeroDivisionError):
        ladder.run("s", lambda: 1 // 0)
    assert not ladder.steps


class Case:
    """An engine with three warm pictures of two segmenters, the other one's idle, and one more picture."""

    def __init__(self, home: Path, on_cpu: bool = False) -> None:
        self.cpu = Bright("cpu-copy")
        self.cpu.version = "main-1"

        def load_on_cpu(name: str) -> Segmenter:
            assert name == "main"
            return self.cpu

        self.segmenters, (self.main, self.other) = several("main", "other", load_on_cpu=load_on_cpu if on_cpu else None)
        self.classifier = ToyClassifier()
        self.engine: Engine = engine_of(home, self.segmenters, self.classifier)
        images = [store_of(home).put(scene_bytes(size_wh=(640, 480 - 20 * number))) for number in (1, 2, 3, 0)]
        for image in images[:3]:
            self.engine.answer(ask(image, segmenter="other" if image == images[0] else None))
        self.image = images[3]
        self.box = ask(self.image, prompts=(Prompt(box_xyxy=BOX),))

    @property
    def steps(self) -> dict[str, int]:
        return self.engine.status().memory_steps


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    made = Case(tmp_path)
    yield made
    made.engine.close()


@pytest.fixture
def with_cpu(tmp_path: Path) -> Iterator[Case]:
    made = Case(tmp_path, on_cpu=True)
    yield made
    made.engine.close()


def test_encoding_is_tried_again_with_what_others_held(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    case.main.short["encode"] = 1
    with caplog.at_level(logging.WARNING):
        found = case.engine.answer(ask(case.image)).found[0]
    assert found is not None and found.xyxy == OBJECT
    assert case.steps == {"warm pictures halved": 1, "idle models released": 1, "tried again": 1}
    assert all(step in caplog.text for step in case.steps) and "20.00 GiB" in caplog.text
    status = case.engine.status()
    assert len(status.warm) == 2 and status.warm[0].image == case.image
    assert {one.name: one.loaded for one in status.segmenters} == {"main": True, "other": False}
    assert status.encodings == 4


def test_waiting_preloads_are_dropped(case: Case) -> None:
    case.main.encode_seconds = 0.3
    for number in range(5):
        case.engine.warm(store_of(case.engine._settings.home).put(scene_bytes(size_wh=(640, 600 + number))))
    case.main.short["decode"] = 1
    assert case.engine.answer(ask(case.image)).found[0] is not None
    assert case.steps["preloads dropped"] == 1 and case.engine.status().dropped_preloads >= 3
    assert case.engine.status().waiting["preload"] <= 1


def test_decoding_goes_on_in_smaller_batches(case: Case) -> None:
    case.main.fits = 3
    found = case.engine.answer(case.box).found[0]
    assert found is not None and found.refined and found.xyxy == OBJECT
    assert case.steps["smaller batch"] == 1 and "prompts one by one" not in case.steps
    many = ask(case.image, prompts=(Prompt(box_xyxy=BOX),) * 8)
    assert case.engine.answer(many).found == (found,) * 8
    assert case.steps["prompts one by one"] == 1
    assert [len(prompts) for prompts in case.main.decoded[-40:]] == [1] * 40


def test_the_answer_of_small_batches_is_that_of_the_large_one(case: Case) -> None:
    boxes = ((185.0, 112.0, 330.0, 272.0), (380.0, 280.0, 580.0, 440.0), (10.0, 10.0, 60.0, 60.0))
    several_boxes = ask(case.image, prompts=tuple(Prompt(box_xyxy=box) for box in boxes), masks=True)
    expected = case.engine.answer(several_boxes).found
    case.main.fits = 1
    assert case.engine.answer(several_boxes).found == expected
    assert any(one is not None and one.mask is not None for one in expected)


@pytest.mark.parametrize("what", ["encode", "decode", "full_size"])
def test_at_last_the_cpu_does_it(with_cpu: Case, what: str) -> None:
    with_cpu.main.short[what] = 9
    found = with_cpu.engine.answer(with_cpu.box).found[0]
    assert found is not None and found.xyxy == OBJECT
    assert with_cpu.steps["on the CPU"] == 1 and "not answered" not in with_cpu.steps
    assert with_cpu.cpu.encoded == (what == "encode")
    with_cpu.main.short[what] = 0
    assert with_cpu.engine.answer(with_cpu.box).found[0] == found
    assert with_cpu.steps["on the CPU"] == 1, "for that request alone"


def test_the_copy_on_the_cpu_is_released_with_time(with_cpu: Case) -> None:
    with_cpu.main.short["encode"] = 9
    with_cpu.engine.answer(with_cpu.box)
    reference = weakref.ref(with_cpu.cpu)
    with_cpu.cpu = None  # type: ignore[assignment]
    assert reference() is not None
    with_cpu.segmenters.get("main")
    with_cpu.segmenters._load_on_cpu = None
    with_cpu.engine._release(0.0)
    gc.collect()
    assert reference() is None


def test_where_nothing_helps_a_sentence_says_so_and_the_engine_goes_on(case: Case) -> None:
    case.main.short["encode"] = 10**6
    with pytest.raises(OutOfMemory, match=r"not enough memory .* smaller segmenter"):
        case.engine.answer(ask(case.image))
    assert case.steps["not answered"] == 1
    case.main.short["encode"] = 0
    assert case.engine.answer(ask(case.image)).found[0] is not None


def test_classes_of_a_few_boxes_at_a_time_or_none(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    most = 1

    def classify(pixels: object, boxes: list[Xyxy]) -> list[Verdict]:
        sizes.append(len(boxes))
        if len(boxes) > most:
            raise MemoryError
        return [Verdict("Ball", 0.9, (("Ball", 0.9),)) for _ in boxes]

    monkeypatch.setattr(case.classifier, "classify", classify)
    many = ask(case.image, prompts=(Prompt(box_xyxy=BOX), Prompt(((1.0, 1.0),), (True,)), Prompt(box_xyxy=BOX)))
    found = case.engine.answer(many).found
    assert sizes == [2, 2, 1, 1] and found[1] is None
    assert [one.verdict.label for one in found if one and one.verdict] == ["Ball", "Ball"]
    most = 0
    found = case.engine.answer(many).found
    assert [one.xyxy for one in found if one] == [OBJECT] * 2 and not any(one.verdict for one in found if one)


def test_there_is_no_device_memory_on_a_cpu() -> None:
    assert device_bytes("cpu") == (None, None, None)
