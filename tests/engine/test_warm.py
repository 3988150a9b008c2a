"""Pictures in memory, on disk, or encoded: once each, whoever asks, also after a restart."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tator_ml.engine import supply as supply_module
from tator_ml.engine.engine import Engine
from tator_ml.engine.messages import EngineError, UnknownImage
from tator_ml.engine.segmenters.base import Embedding
from tator_ml.engine.warm import WarmImage, WarmImages
from tator_ml.images.decode import ImageError, decode_image
from tator_ml.once import Once
from tests.engine.material import OBJECT, Bright, ask, engine_of, store_of
from tests.wire.conftest import ToyClassifier, scene_bytes


def warm_image(nbytes: int = 1000, model: str = "m-1") -> WarmImage:
    return WarmImage(Once(lambda: np.zeros((0, 0, 3), np.uint8)), embedding(nbytes, model))


def embedding(nbytes: int, model: str = "m-1") -> Embedding:
    return Embedding({"all": torch.zeros(1, nbytes, dtype=torch.uint8)}, (0, 0), model)


def held(warm: WarmImages) -> list[str]:
    return [one.image for one in warm.status()]


def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """Engines one after the other, each with a home in common; the one before is closed."""
    made: list[Engine] = []

    def start(segmenter: Any, classifier: Any = None, **changes: Any) -> Engine:
        for one in made:
            one.close()
        made[:] = [engine_of(tmp_path, segmenter, classifier, **changes)]
        return made[0]

    yield start
    for one in made:
        one.close()


# The memory's own rules.


def test_pinned_pictures_go_last_of_all() -> None:
    warm = WarmImages(3000)
    for name in "abc":
        warm.put(name, warm_image())
    warm.pin(["a", "b"], 60)
    warm.put("d", warm_image())
    assert held(warm) == ["d", "b", "a"] and warm.evictions == 1
    assert [one.pinned for one in warm.status()] == [False, True, True]
    warm.put("e", warm_image())
    assert held(warm) == ["e", "b", "a"]
    warm.pin(["e"], 60)
    warm.put("f", warm_image())
    assert held(warm) == ["f", "e", "b"], "nothing else is left"
    assert warm.nbytes == 3000


def test_a_pin_ends() -> None:
    warm = WarmImages(2000)
    warm.pin(["a"], 0.02)
    for name in "ab":
        warm.put(name, warm_image())
    time.sleep(0.03)
    warm.put("c", warm_image())
    assert held(warm) == ["c", "b"]


def test_the_budget_is_set_while_it_runs() -> None:
    warm = WarmImages(10_000)
    for name in "abcdef":
        warm.put(name, warm_image())
    warm.set_budget(2500)
    assert held(warm) == ["f", "e"] and warm.evictions == 4
    warm.set_budget(0)
    assert held(warm) == ["f"], "the newest stays"
    warm.set_budget(4000)
    for name in "abcdef":
        warm.put(name, warm_image())
    assert held(warm) == ["f", "e", "d", "c"]


def test_halving() -> None:
    warm = WarmImages(10**9)
    for name in "abcdef":
        warm.put(name, warm_image())
    assert warm.halve() == 3 and held(warm) == ["f", "e", "d"]
    assert warm.budget_bytes == 64 * 2**20, "never less, or a few small pictures would ruin it"
    assert [warm.halve() for _ in range(3)] == [2, 0, 0] and held(warm) == ["f"]


def test_the_same_picture_for_two_segmenters_is_two() -> None:
    warm = WarmImages(10_000)
    warm.put("a", warm_image(model="m-1"))
    warm.put("a", warm_image(model="n-1"))
    warm.put("a", warm_image(500, model="n-1"))
    assert warm.nbytes == 1500 and warm.get("o-1", "a") is None
    assert warm.forget("n-1") == 1 and warm.get("n-1", "a") is None and warm.get("m-1", "a") is not None
    assert warm.nbytes == 1000


def test_pixels_count_before_they_are_decoded() -> None:
    one = WarmImage(Once(lambda: np.zeros((4, 5, 3), np.uint8)), Embedding({}, (5, 4), "m-1"))
    assert one.nbytes == 60 == one.picture().nbytes


def test_once_is_once_and_an_error_reaches_everybody() -> None:
    calls: list[int] = []

    def work() -> int:
        calls.append(1)
        time.sleep(0.05)
        return 7

    one = Once(work)
    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(lambda _: one(), range(12))) == {7}
    assert calls == [1] and not one.failed
    fails = Once(lambda: 1 // 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fails()
    assert fails.failed


# The engine over them.


def test_a_restart_encodes_nothing_again(engines: Callable[..., Engine], tmp_path: Path) -> None:
    first, second = Bright(), Bright()
    images = [store_of(tmp_path).put(scene_bytes(size_wh=(640 + number, 480))) for number in range(4)]
    engine = engines(first)
    before = [engine.answer(ask(image)) for image in images]
    assert [one.came_from for one in before] == ["encoded"] * 4 and not any(one.was_warm for one in before)
    assert engine.answer(ask(images[3])).came_from == "memory"
    status = engine.status()
    assert (status.hits, status.disk_hits, status.misses, status.clicks, status.encodings) == (1, 0, 4, 5, 4)
    engine = engines(second)
    after = [engine.answer(ask(image)) for image in images]
    assert [one.came_from for one in after] == ["disk"] * 4 and all(one.was_warm for one in after)
    assert [one.found for one in after] == [one.found for one in before]
    status = engine.status()
    assert first.encoded == 4 and second.encoded == status.encodings == 0
    assert (status.hits, status.disk_hits, status.misses) == (0, 4, 0)
    assert 0 < status.store_bytes <= status.store_budget_bytes == 10 * 2**30


def test_a_damaged_embedding_is_made_anew(engines: Callable[..., Engine], tmp_path: Path) -> None:
    image = store_of(tmp_path).put(scene_bytes())
    engines(Bright()).answer(ask(image))
    segmenter = Bright()
    engine = engines(segmenter)  # the one before has written
    (path,) = (tmp_path / "warm").rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    answer = engine.answer(ask(image))
    assert answer.came_from == "encoded" and answer.found[0] is not None and answer.found[0].xyxy == OBJECT
    engine = engines(Bright())
    assert engine.answer(ask(image)).came_from == "disk"


def test_other_weights_do_not_take_the_embedding(engines: Callable[..., Engine], tmp_path: Path) -> None:
    image = store_of(tmp_path).put(scene_bytes())
    engines(Bright("bright-1")).answer(ask(image))
    assert engines(Bright("bright-2")).answer(ask(image)).came_from == "encoded"


def test_what_leaves_memory_comes_back_from_disk(engines: Callable[..., Engine], tmp_path: Path) -> None:
    segmenter = Bright()
    engine = engines(segmenter, warm_bytes=0, warm_pin_seconds=0)
    images = [store_of(tmp_path).put(scene_bytes(size_wh=(640 + number, 480))) for number in range(3)]
    for _ in range(3):
        for image in images:
            assert engine.answer(ask(image)).found[0] is not None
    assert segmenter.encoded == 3 and engine.status().evictions == 8
    assert engine.status().disk_hits == 6, "also before it is written"


def test_without_a_store_every_start_encodes(engines: Callable[..., Engine], tmp_path: Path) -> None:
    image = store_of(tmp_path).put(scene_bytes())
    for _ in range(2):
        assert engines(Bright(), embedding_store_bytes=0).answer(ask(image)).came_from == "encoded"
    assert not (tmp_path / "warm").exists()


def test_preloads_and_clicks_of_many_threads_encode_once(engines: Callable[..., Engine], tmp_path: Path) -> None:
    segmenter = Bright()
    segmenter.encode_seconds = 0.05
    engine = engines(segmenter, ToyClassifier())
    images = [store_of(tmp_path).put(scene_bytes(size_wh=(640 + number, 480))) for number in range(4)]

    def one(number: int) -> None:
        image = images[number % 4]
        engine.warm(image) if number % 3 else engine.answer(ask(image))
        engine.keep(image) if number % 5 == 0 else None

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(one, range(60)))
    until(lambda: engine.status().waiting["preload"] == 0)
    assert segmenter.encoded == engine.status().encodings == 4


def test_a_picture_is_decoded_once_and_not_on_the_devices_thread(
    engines: Callable[..., Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []

    def decode(data: bytes, most: int) -> Any:
        decoded.append(threading.current_thread().name)
        time.sleep(0.05)
        return decode_image(data, most)

    monkeypatch.setattr(supply_module, "decode_image", decode)
    image = store_of(tmp_path).put(scene_bytes())
    for _ in range(2):  # encoded, then from disk
        decoded.clear()
        engine = engines(Bright(), ToyClassifier())
        engine.warm(image)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(engine.answer, [ask(image)] * 8))
        assert len(decoded) == 1 and decoded[0] != "tator-device"


def test_from_disk_a_click_without_classes_decodes_no_picture(engines: Callable[..., Engine], tmp_path: Path) -> None:
    image = store_of(tmp_path).put(scene_bytes())
    engines(Bright(), ToyClassifier()).answer(ask(image))
    engine = engines(Bright(), ToyClassifier())
    (tmp_path / "images" / image).unlink()
    assert engine.answer(ask(image, classify=False)).found[0] is not None
    with pytest.raises(UnknownImage):
        engine.answer(ask(image))
    store_of(tmp_path).put(scene_bytes())
    found = engine.answer(ask(image)).found[0]
    assert found is not None and found.verdict is not None and engine.status().encodings == 0


def test_a_picture_that_comes_later_is_found(engines: Callable[..., Engine], tmp_path: Path) -> None:
    data = scene_bytes()
    image = store_of(tmp_path / "elsewhere").put(data)
    engine = engines(Bright())
    for _ in range(2):
        with pytest.raises(UnknownImage):
            engine.answer(ask(image))
    store_of(tmp_path).put(data)
    assert engine.answer(ask(image)).found[0] is not None
    assert engine.status().waiting["click"] == 0


def test_pictures_in_front_of_people_stay_while_others_are_preloaded(
    engines: Callable[..., Engine], tmp_path: Path
) -> None:
    size = 640 * 480 * 7 + 100_000  # pixels and Bright's embedding
    engine = engines(Bright(), warm_bytes=3 * size)
    names = [store_of(tmp_path).put(scene_bytes(size_wh=(640, 480 + number))) for number in range(8)]
    engine.answer(ask(names[0]))
    engine.warm(names[1])
    engine.pin([names[1]], 60)
    for name in names[2:]:
        engine.warm(name)
    expected = {names[0]: True, names[1]: True, names[7]: False}  # what is encoded is warm a moment later
    until(lambda: {one.image: one.pinned for one in engine.status().warm} == expected)
    assert engine.status().encodings == 8
    engine.set_budget(size)
    assert len(engine.status().warm) == 1 and engine.status().budget_bytes == size


def test_preloads_are_dropped_by_group_and_what_is_wanted_stays(engines: Callable[..., Engine], tmp_path: Path) -> None:
    segmenter = Bright()
    segmenter.encode_seconds = 0.1
    engine = engines(segmenter)
    names = [store_of(tmp_path).put(scene_bytes(size_wh=(640, 480 + number))) for number in range(9)]
    for number, name in enumerate(names):
        assert engine.warm(name, group="odd" if number % 2 else "even")
    assert all(engine.warm(name) for name in names), "twice is once"
    until(lambda: segmenter.encoded >= 1)
    assert engine.drop_preloads({names[7]}, group="odd") in (2, 3)  # 3 and 5, perhaps 1
    assert engine.drop_preloads({names[7], names[8]}) >= 1
    until(lambda: engine.status().waiting["preload"] == 0)
    until(lambda: {names[7], names[8]} <= {one.image for one in engine.status().warm})
    assert segmenter.encoded <= 6 and engine.status().dropped_preloads >= 3
    for name in names:
        assert engine.answer(ask(name)).found[0] is not None, "dropped, not forgotten"


def test_keep_encodes_what_is_not_on_disk_and_nothing_twice(engines: Callable[..., Engine], tmp_path: Path) -> None:
    names = [store_of(tmp_path).put(scene_bytes(size_wh=(640, 480 + number))) for number in range(3)]
    segmenter = Bright()
    engine = engines(segmenter)
    assert [engine.keep(name) for name in [*names, *names]] == [True] * 3 + [False] * 3
    assert len(list((tmp_path / "warm").rglob("*.safetensors"))) == 3, "it is there when the call returns"
    assert engine.status().warm == (), "an overnight job pushes nothing out of memory"
    assert [engines(Bright()).keep(name) for name in names] == [False] * 3
    with pytest.raises(EngineError, match="TATOR_EMBEDDING_STORE_BYTES"):
        engines(Bright(), embedding_store_bytes=0).keep(names[0])


def test_keep_says_what_is_wrong_with_a_picture(engines: Callable[..., Engine], tmp_path: Path) -> None:
    engine = engines(Bright())
    with pytest.raises(ImageError, match="not a picture"):
        engine.keep(store_of(tmp_path).put(b"no picture"))
    with pytest.raises(UnknownImage):
        engine.keep("0" * 64)


def test_a_disk_that_is_full_costs_no_click(
    engines: Callable[..., Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tator_ml.engine.store._serialize", full)
    engine = engines(Bright())
    for number in range(3):
        image = store_of(tmp_path).put(scene_bytes(size_wh=(640, 480 + number)))
        assert engine.answer(ask(image)).found[0] is not None
    assert engine._supply.flush(5)


def test_status_says_ages_and_memory(engines: Callable[..., Engine], tmp_path: Path) -> None:
    segmenter = Bright()
    segmenter.encode_seconds = 0.3
    engine = engines(segmenter)
    assert engine.status().since_click_seconds is None
    for number in range(3):
        engine.warm(store_of(tmp_path).put(scene_bytes(size_wh=(640, 480 + number))))
    time.sleep(0.1)
    status = engine.status()
    assert status.waiting["preload"] >= 1 and 0.05 < status.oldest_seconds["preload"] < 5
    assert status.oldest_seconds["click"] == 0
    assert status.process_bytes > 50 * 2**20 and status.device_bytes is None
    (own,) = status.segmenters
    assert (own.name, own.version, own.loaded) == ("starter", "bright-1", True)


def test_two_engines_on_one_home_encode_a_picture_once(tmp_path: Path) -> None:
    first, second = Bright(), Bright()
    engines = [engine_of(tmp_path, first), engine_of(tmp_path, second)]
    images = [store_of(tmp_path).put(scene_bytes(size_wh=(64 + number, 48))) for number in range(8)]
    try:
        with ThreadPoolExecutor(16) as pool:
            made = [pool.submit(engine.keep, image) for image in images for engine in engines]
            assert sum(one.result(30) for one in made) == len(images)
    finally:
        for engine in engines:
            engine.close()
    assert first.encoded + second.encoded == len(images)
