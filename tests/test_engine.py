"""The engine: encoded once, clicks first, the guard, and two processes that talk."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tator_ml.engine.client import EngineAway, EngineClient
from tator_ml.engine.engine import Engine
from tator_ml.engine.lanes import Lane, Lanes
from tator_ml.engine.messages import Ask, Busy, EngineError, PackedMask, Prompt, UnknownImage
from tator_ml.engine.refine import Guard, Segment, objections
from tator_ml.engine.server import EngineServer
from tator_ml.engine.warm import WarmImage, WarmImages
from tator_ml.images.decode import ImageError
from tator_ml.images.fetch import ImageFetcher
from tator_ml.images.store import ImageStore
from tator_ml.once import Once
from tator_sdk.downloads import Download
from tator_sdk.settings import Settings
from tests.wire.conftest import BrightSegmenter, ToyClassifier, scene_bytes

POINT = Prompt(((256.0, 192.0),), (True,))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def store(settings: Settings) -> ImageStore:
    return ImageStore(settings.home / "images", 10**9)


@pytest.fixture
def segmenter() -> BrightSegmenter:
    return BrightSegmenter()


@pytest.fixture
def engine(settings: Settings, store: ImageStore, segmenter: BrightSegmenter) -> Iterator[Engine]:
    made = Engine(settings, store, segmenter, ToyClassifier())
    yield made
    made.close()


def test_many_clicks_on_one_picture_encode_it_once(engine: Engine, store: ImageStore) -> None:
    ask = Ask(store.put(scene_bytes()), (POINT,))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(engine.answer, [ask] * 24))
    assert engine.status().encodings == 1
    assert {answer.found[0].xyxy for answer in answers if answer.found[0]} == {(192, 120, 320, 264)}
    assert sum(not answer.was_warm for answer in answers) == 1


def test_threads_never_mix_pictures(engine: Engine, store: ImageStore) -> None:
    sizes = [(640, 480), (320, 240), (200, 300), (900, 100)]
    names = [store.put(scene_bytes(size_wh=size)) for size in sizes]

    def click(number: int) -> bool:
        width, height = sizes[number % 4]
        prompt = Prompt(((0.4 * width, 0.4 * height),), (True,))
        found = engine.answer(Ask(names[number % 4], (prompt,))).found[0]
        return found is not None and found.xyxy[2] == int(0.5 * width)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(click, range(80)))


def test_a_click_overtakes_preloads(engine: Engine, store: ImageStore, segmenter: BrightSegmenter) -> None:
    segmenter.encode_seconds = 0.2
    for width in range(300, 320):
        engine.warm(store.put(scene_bytes(size_wh=(width, 200))))
    clicked = store.put(scene_bytes(size_wh=(640, 480)))
    engine.answer(Ask(clicked, (POINT,)))
    # the one that ran and its own; on a busy machine a few more until it is asked
    assert engine.status().encodings < 8


def test_a_click_overtakes_what_a_job_asks_and_is_counted_alone(
    engine: Engine, store: ImageStore, segmenter: BrightSegmenter
) -> None:
    image, box = store.put(scene_bytes()), Prompt(box_xyxy=(180.0, 110.0, 330.0, 270.0))
    segmenter.encode_seconds = 0.5
    asked = [Ask(image, (box,), lane="batch")] * 3 + [Ask(image, (POINT,))]
    with ThreadPoolExecutor(4) as pool:
        waiting = []
        for one in asked:
            waiting.append(pool.submit(engine.answer, one))
            time.sleep(0.05)
        answers = [future.result() for future in waiting]
    assert [prompts.points is not None for prompts in segmenter.decoded] == [False, True, False, False]
    job, click = answers[0].found[0], answers[3].found[0]
    assert job is not None and click is not None and job.refined and job.xyxy == click.xyxy == (192, 120, 320, 264)
    status = engine.status()
    assert (status.clicks, status.hits, status.misses) == (1, 1, 0) and status.since_click_seconds is not None


def test_lanes_refuse_more_than_they_hold() -> None:
    lanes = Lanes({Lane.CLICK: 2, Lane.PRELOAD: 1, Lane.BATCH: 1})
    gate = threading.Event()
    running = lanes.submit(Lane.CLICK, gate.wait)
    time.sleep(0.05)
    waiting = [lanes.submit(Lane.CLICK, lambda: 1) for _ in range(2)]
    with pytest.raises(Busy):
        lanes.submit(Lane.CLICK, lambda: 1)
    gate.set()
    assert running.result(5) and [one.result(5) for one in waiting] == [1, 1]
    lanes.close()


def test_an_error_in_one_piece_of_work_leaves_the_lane_working() -> None:
    lanes = Lanes()
    with pytest.raises(ZeroDivisionError):
        lanes.submit(Lane.CLICK, lambda: 1 // 0).result(5)
    assert lanes.submit(Lane.BATCH, lambda: 2).result(5) == 2
    lanes.close()


def test_warm_pictures_stay_within_their_budget(segmenter: BrightSegmenter) -> None:
    warm = WarmImages(budget_bytes=3_000_000)
    for number in range(10):
        pixels = np.zeros((500, 500, 3), np.uint8)
        warm.put(str(number), WarmImage(Once(lambda pixels=pixels: pixels), segmenter.encode(pixels)))
    held = warm.status()
    assert sum(one.nbytes for one in held) <= 3_000_000
    assert held[0].image == "9" and warm.get("bright-1", "0") is None


def test_one_picture_larger_than_the_budget_is_still_answered(
    store: ImageStore, segmenter: BrightSegmenter, tmp_path: Path
) -> None:
    engine = Engine(Settings(home=tmp_path, warm_bytes=0), store, segmenter, None)
    assert engine.answer(Ask(store.put(scene_bytes()), (POINT,))).found[0] is not None
    engine.close()


def segment(**changes: float) -> Segment:
    values = {"quality": 0.95, "stability": 0.95, "consistency": 0.95, **changes}
    return Segment(np.ones((1, 1), bool), (10, 10, 30, 30), **values)


@pytest.mark.parametrize(
    ("changes", "drawn", "words"),
    [
        ({}, (9, 9, 31, 31), []),
        ({}, (0, 0, 60, 60), ["agrees"]),
        ({"quality": 0.5}, (9, 9, 31, 31), ["trusted"]),
        ({"stability": 0.5}, (9, 9, 31, 31), ["stable"]),
        ({"consistency": 0.5}, (9, 9, 31, 31), ["consistent"]),
    ],
)
def test_the_guard(changes: dict[str, float], drawn: tuple[float, ...], words: list[str]) -> None:
    against = objections(segment(**changes), drawn, Guard(0.6, 0.8, 0.9, 0.8))  # type: ignore[arg-type]
    assert len(against) == len(words) and all(word in said for word, said in zip(words, against, strict=True))


def test_unknown_picture(engine: Engine) -> None:
    with pytest.raises(UnknownImage):
        engine.answer(Ask("0" * 64, (POINT,)))


def test_masks_pack_and_unpack() -> None:
    mask = np.random.default_rng(0).random((37, 53)) > 0.5
    assert np.array_equal(PackedMask.pack(mask).unpack(), mask)


def test_store_names_cannot_leave_the_folder(store: ImageStore) -> None:
    assert store.get("../../etc/passwd") is None and "../x" not in store


def test_store_is_bounded(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images", max_bytes=10_000)
    names = [store.put(bytes([number]) * 3_000) for number in range(10)]
    assert sum(path.stat().st_size for path in (tmp_path / "images").iterdir()) <= 10_000
    assert store.get(names[-1]) is not None


def test_a_store_is_opened_while_others_prune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ImageStore(tmp_path, 10**6)
    gone, stays = store.put(b"a" * 1000), store.put(b"b" * 1000)
    list_folder = os.scandir

    def listed(folder: Path) -> list[os.DirEntry[str]]:
        found = list(list_folder(folder))
        (tmp_path / gone).unlink(missing_ok=True)
        return found

    monkeypatch.setattr(os, "scandir", listed)
    assert ImageStore(tmp_path, 10**6)._bytes == 1000 and stays in store


def test_a_picture_that_is_pruned_meanwhile_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ImageStore(tmp_path, 10**6)
    name = store.put(b"a" * 1000)
    touch = os.utime

    def pruned(path: Path) -> None:
        path.unlink()
        touch(path)

    monkeypatch.setattr(os, "utime", pruned)
    assert store.get(name) == b"a" * 1000 and store.get(name) is None
    store.put(b"a" * 1000)
    assert store.put(b"a" * 1000) == name and name in store


def test_many_who_ask_for_one_picture_share_its_download(
    settings: Settings, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetcher, asked, gate = ImageFetcher(settings, store), list[str](), threading.Event()

    def read(address: str, *_: object) -> Download:
        asked.append(address)
        assert gate.wait(10)
        if len(asked) == 1:
            raise ImageError("It does not answer.")
        return Download(scene_bytes(), None, None)

    monkeypatch.setattr(fetcher._source, "read", read)

    def fetch(_: int) -> str:
        try:
            return fetcher.fetch("/data/a.png", 7).image
        except ImageError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        found = pool.map(fetch, range(8))
        time.sleep(0.3)
        gate.set()
        assert set(found) == {"It does not answer."} and len(asked) == 1
        assert len(set(pool.map(fetch, range(8)))) == 1 and len(asked) == 2, "a failure is not kept"
    fetcher.close()


# Two processes' worth: server and client over the real socket.


@pytest.fixture
def server(settings: Settings, store: ImageStore, segmenter: BrightSegmenter) -> Iterator[EngineServer]:
    made = EngineServer(settings, lambda: Engine(settings, store, segmenter, ToyClassifier()))
    threading.Thread(target=made.serve, daemon=True).start()
    yield made
    made.close()


def test_client_and_server_over_the_socket(server: EngineServer, settings: Settings, store: ImageStore) -> None:
    client = EngineClient(settings, store)
    answer = client.answer(Ask(store.put(scene_bytes()), (POINT,), masks=True))
    found = answer.found[0]
    assert found is not None and found.xyxy == (192, 120, 320, 264)
    assert found.mask is not None and found.mask.unpack().sum() == 128 * 144
    assert found.verdict is not None and found.verdict.label is None
    assert client.status().encodings == 1
    client.close()


def test_an_engine_elsewhere_is_sent_the_picture(server: EngineServer, settings: Settings, tmp_path: Path) -> None:
    far = ImageStore(tmp_path / "elsewhere", 10**9)
    client = EngineClient(settings, far)
    assert client.answer(Ask(far.put(scene_bytes()), (POINT,))).found[0] is not None
    client.close()


def test_a_damaged_picture_is_said_over_the_socket(server: EngineServer, settings: Settings, store: ImageStore) -> None:
    client = EngineClient(settings, store)
    with pytest.raises(ImageError, match="not a picture"):
        client.answer(Ask(store.put(b"no picture"), (POINT,)))
    client.close()


def test_nobody_there(settings: Settings, store: ImageStore) -> None:
    with pytest.raises(EngineAway, match="tator up"):
        EngineClient(settings, store).status()


def test_a_wrong_key_is_refused(server: EngineServer, settings: Settings, store: ImageStore) -> None:
    stranger = settings.model_copy(update={"engine_key": type(settings).model_fields["engine_key"].default})
    (settings.home / "run" / "engine.key").write_text("not the key")
    with pytest.raises(EngineAway):
        EngineClient(stranger, store).status()


def test_models_that_cannot_be_loaded_are_said(settings: Settings, store: ImageStore) -> None:
    def load() -> Engine:
        raise EngineError("The file sam_vit_b.pth is missing; put it into models/.")

    server = EngineServer(settings, load)
    threading.Thread(target=server.serve, daemon=True).start()
    client = EngineClient(settings, store)
    with pytest.raises(EngineError, match=r"sam_vit_b\.pth"):
        client.answer(Ask(store.put(scene_bytes()), (POINT,)))
    client.close()
    server.close()


def test_tcp_needs_a_key(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="TATOR_ENGINE_KEY"):
        EngineServer(Settings(home=tmp_path, engine_address="127.0.0.1:0"), lambda: None)  # type: ignore[arg-type,return-value]


def test_a_living_engine_keeps_its_socket(server: EngineServer, settings: Settings, store: ImageStore) -> None:
    with pytest.raises(EngineError, match="--address"):
        EngineServer(settings, lambda: None)  # type: ignore[arg-type,return-value]
    client = EngineClient(settings, store)
    assert client.status().error is None
    client.close()


def test_a_socket_that_a_crash_left_is_replaced(settings: Settings, store: ImageStore) -> None:
    path = settings.home / "run" / "engine.sock"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as line:
        line.bind(str(path))
        line.listen()
    server = EngineServer(settings, lambda: Engine(settings, store, BrightSegmenter(), None))
    threading.Thread(target=server.serve, daemon=True).start()
    client = EngineClient(settings, store)
    assert client.status().error is None
    client.close()
    server.close()


def test_want_of_descriptors_ends_no_engine(
    server: EngineServer, settings: Settings, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, failed = server._listener.accept, threading.Event()

    def short() -> object:
        if not failed.is_set():
            failed.set()
            raise OSError(errno.EMFILE, "Too many open files")
        return accept()

    monkeypatch.setattr(server._listener, "accept", short)
    for _ in range(3):  # the first one comes to the call that waited already
        client = EngineClient(settings, store)
        assert client.status().error is None
        client.close()
    assert failed.is_set()


def test_what_a_job_asks_is_waited_for_and_a_click_is_not(
    server: EngineServer, settings: Settings, store: ImageStore, segmenter: BrightSegmenter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("tator_ml.engine.client.GRACE_SECONDS", 0.0)
    hasty = EngineClient(settings.model_copy(update={"answer_timeout_seconds": 0.3}), store)
    segmenter.encode_seconds = 1.0
    job = Ask(store.put(scene_bytes()), (POINT,), lane="batch")
    assert hasty.answer(job).found[0] is not None
    with pytest.raises(EngineAway, match="not answered"):
        hasty.answer(Ask(store.put(scene_bytes(size_wh=(300, 200))), (POINT,)))
    hasty.close()
