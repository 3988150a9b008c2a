"""Several engines as one: real ones, in processes of their own, of which one is killed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import Any

import cv2
import numpy as np
import pytest
from pydantic import SecretStr

from tator_ml.engine.messages import Ask, EmbedAsk, Embedded, EngineError, ImageBoxes, Prompt, Status
from tator_ml.engine.routing import Member, RoutedEngines, open_engines, ranked
from tator_ml.images.store import ImageStore
from tator_ml.running.processes import free_port
from tator_sdk.settings import Settings

from ..jobs.conftest import until
from .process import start_engine

ADDRESSES = ("a.sock", "10.0.0.2:9100", "10.0.0.3:9100")


def pictures(count: int) -> list[str]:
    return [f"{number:064x}" for number in range(count)]


def test_pictures_are_spread_evenly_and_the_same_for_everybody() -> None:
    firsts = Counter(ranked(one, ADDRESSES)[0] for one in pictures(3000))
    assert all(abs(count - 1000) < 120 for count in firsts.values()), firsts
    assert all(ranked(one, ADDRESSES) == ranked(one, reversed(ADDRESSES)) for one in pictures(50))


def test_only_the_pictures_of_an_engine_that_is_gone_move() -> None:
    for one in pictures(500):
        before = ranked(one, ADDRESSES)
        assert ranked(one, [address for address in ADDRESSES if address != before[0]]) == before[1:]


def test_addresses_are_read_from_the_setting() -> None:
    assert Settings(engine_address=" a.sock, 10.0.0.2:9100 ,a.sock,").engine_addresses == ("a.sock", "10.0.0.2:9100")
    assert len(Settings().engine_addresses) == 1


class Stuck:
    """An engine whose batch lane is full for ever, and that otherwise answers."""

    def __init__(self) -> None:
        self.embedding, self.go_on = threading.Event(), threading.Event()

    def embed(self, ask: EmbedAsk) -> Embedded:
        self.embedding.set()
        assert self.go_on.wait(10)
        return Embedded("e", np.zeros((len(ask.items), 4), np.float16))

    def status(self) -> Status:
        return Status(True, "cpu", "v", {}, (), 0, 0)

    def stop_detecting(self, task: str) -> int:
        return 1

    def close(self) -> None:
        pass


def test_what_jobs_embed_keeps_nobody_from_status_and_stopping() -> None:
    engines = [Stuck(), Stuck()]
    routed = RoutedEngines([Member(address, one) for address, one in zip(ADDRESSES, engines, strict=False)])  # type: ignore[arg-type]
    items = tuple(ImageBoxes(one, ((0.0, 0.0, 9.0, 9.0),)) for one in pictures(20))
    with ThreadPoolExecutor(2) as jobs, closing(routed):
        embedding = [jobs.submit(routed.embed, EmbedAsk("e", items)) for _ in range(2)]
        assert all(one.embedding.wait(10) for one in engines)
        with ThreadPoolExecutor(1) as asking:
            assert asking.submit(routed.stop_detecting, "1/7").result(5) == 2
            assert asking.submit(routed.status).result(5).ready
        for one in engines:
            one.go_on.set()
        assert [len(one.result(10).embeddings) for one in embedding] == [20, 20]


@dataclass
class Pair:
    """Two engines: one on a Unix socket, one on TCP with a home, so a picture store, of its own."""

    settings: Settings
    store: ImageStore
    client: RoutedEngines
    running: dict[str, BaseProcess] = field(default_factory=dict)
    drawn: int = 0

    def start(self, address: str) -> None:
        far = ":" in address
        home = self.settings.home / "far" if far else self.settings.home
        own = self.settings.model_copy(update={"home": home, "engine_address": address})
        self.running[address] = start_engine(own)

    def picture(self, first: str) -> str:
        """A new picture whose engine is the one at an address."""
        while True:
            self.drawn += 1
            pixels = np.random.default_rng(self.drawn).integers(0, 255, (64, 64, 3))
            image = self.store.put(cv2.imencode(".png", pixels.astype(np.uint8))[1].tobytes())
            if ranked(image, self.settings.engine_addresses)[0] == first:
                return image

    def clicks(self) -> dict[str, Any]:
        return {one.address: one.clicks for one in self.client.status().engines}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    home = tmp_path_factory.mktemp("e")
    addresses = (str(home / "near.sock"), f"127.0.0.1:{free_port(19460)}")
    settings = Settings(
        home=home, engine_address=",".join(addresses), engine_key=SecretStr("k" * 20), torch_threads=1, offline=True
    )
    store = ImageStore(home / "images", 2**30)
    client = open_engines(settings, store)
    assert isinstance(client, RoutedEngines)
    made = Pair(settings, store, client)
    with ExitStack() as stack, closing(client):
        for address in addresses:
            made.start(address)
            stack.callback(lambda address=address: (made.running[address].kill(), made.running[address].join(10)))
        until(lambda: all_ready(made), 60)
        yield made


def all_ready(pair: Pair) -> bool:
    try:
        return all(one.ready for one in pair.client.status().engines)
    except EngineError:
        return False


def ask(image: str) -> Ask:
    return Ask(image, (Prompt(((30.0, 30.0),), (True,)),))


def test_each_picture_is_answered_by_its_engine_and_moves_while_that_is_away(pair: Pair) -> None:
    near, far = pair.settings.engine_addresses
    mine = {address: [pair.picture(address) for _ in range(2)] for address in (near, far)}
    for address, images in mine.items():
        before = pair.clicks()
        for image in images:
            pair.client.answer(ask(image))
        after = pair.clicks()
        assert {one: after[one] - before[one] for one in after} == {one: 2 * (one == address) for one in after}
    pair.client.set_budget(2**28)
    status = pair.client.status()
    assert status.budget_bytes == 2**28 and status.clicks >= 4 and len(status.warm) >= 4

    pair.running[far].kill()
    pair.running[far].join(10)
    for image in mine[far]:  # the first meets the dead one, the second does not ask it any more
        assert not pair.client.answer(ask(image)).was_warm
    status = pair.client.status()
    assert status.ready and [one.ready for one in status.engines] == [True, False] and status.engines[1].error

    pair.start(far)
    until(lambda: all_ready(pair), 60)
    pair.client.answer(ask(mine[far][0]))
    assert pair.clicks()[far] == 1, "it has its pictures back"


def test_boxes_on_pictures_of_both_are_embedded_in_order(pair: Pair) -> None:
    until(lambda: all_ready(pair), 60)
    near, far = pair.settings.engine_addresses
    images = [pair.picture(address) for address in (near, far, near, far)]
    items = tuple(ImageBoxes(one, ((2.0, 2.0, 40.0, 40.0),) * (number + 1)) for number, one in enumerate(images))
    together = pair.client.embed(EmbedAsk("starter", items))
    alone = [pair.client.embed(EmbedAsk("starter", (one,))).embeddings for one in items]
    assert together.embeddings.shape[0] == 10
    np.testing.assert_allclose(together.embeddings, np.concatenate(alone), atol=2e-3)


def test_an_engine_listens_at_one_address(pair: Pair) -> None:
    from tator_ml.engine.wire import listen

    with pytest.raises(EngineError, match="--address"):
        listen(pair.settings)
