"""``tator warm``: every picture encoded once, whoever dies and however many share the work."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from pydantic import ValidationError

from tator_ml.engine.messages import Status
from tator_ml.images.decode import ImageError
from tator_ml.images.fetch import ImageRef
from tator_sdk.requests import WarmUp
from tator_sdk.settings import Settings
from training.job import JobCancelled, LocalJob
from training.warm import warm

CONFIG = '<View><Image name="image" value="$image"/></View>'
COUNT = 230


class Studio:
    """A project of tasks, listed a page at a time; the last picture stands in two of them."""

    def __init__(self) -> None:
        self.pages: Counter[int] = Counter()
        about = SimpleNamespace(label_config=CONFIG, task_number=COUNT)
        self.projects = SimpleNamespace(get=lambda _: about)
        self.tasks = SimpleNamespace(list=self._list)

    def _list(self, project: int, page: int, page_size: int, fields: str) -> Any:
        self.pages[page] += 1
        numbers = range((page - 1) * page_size + 1, min(COUNT, page * page_size) + 1)
        tasks = [SimpleNamespace(id=one, data={"image": f"/{one}.png"}) for one in numbers]
        return SimpleNamespace(items=tasks)


class Pictures:
    """Address → content; two addresses show the same, and one is broken."""

    def __init__(self) -> None:
        self.fetched: Counter[str] = Counter()
        self.broken = "/13.png"

    def fetch(self, address: str, task_id: int | None = None) -> ImageRef:
        self.fetched[address] += 1
        if address == self.broken:
            raise ImageError("The picture is damaged.")
        same = "/1.png" if address == "/101.png" else address
        return ImageRef(hashlib.sha256(same.encode()).hexdigest(), (8, 8))


class Encoder:
    """An engine whose store outlives those who ask; it dies with them when told to."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.encodings: Counter[str] = Counter()
        self.stored: set[str] = set()
        self.seconds = seconds
        self._lock = threading.Lock()

    def keep(self, image: str, segmenter: str | None = None) -> bool:
        with self._lock:
            if image in self.stored:
                return False
            self.encodings[image] += 1
        time.sleep(self.seconds)
        with self._lock:
            self.stored.add(image)
        return True

    def segmenter_version(self, name: str | None = None) -> str:
        return f"{name or 'starter'}-1"

    def status(self) -> Status:
        return Status(True, "cpu", "x", {}, (), 0, 0, store_bytes=99, store_budget_bytes=100)


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> Studio:
    made = Studio()
    monkeypatch.setattr("training.sweep.open_studio", lambda _: made)
    monkeypatch.setattr("training.warm.POSTPONED_SECONDS", 0.01)
    return made


def shard(encoder: Encoder, number: int = 0, of: int = 1, connection: redis.Redis | None = None, **how: Any) -> Any:
    request = WarmUp(project=7, shards=of, shard=number)
    job = LocalJob(Settings(), f"warm-7-{number}", how.get("on_progress"))
    return warm(request, Settings(), job, encoder, how.get("pictures", Pictures()), connection)


def test_a_whole_project_once(studio: Studio) -> None:
    encoder = Encoder()
    report = shard(encoder)
    assert (report["tasks"], report["pictures"], report["unreadable"]) == (COUNT, COUNT, 1)
    assert report["encoded"] == len(encoder.encodings) == COUNT - 2 and report["there"] == 1
    assert set(encoder.encodings.values()) == {1} and studio.pages == {1: 1, 2: 1, 3: 1}
    assert any("damaged" in note for note in report["notes"])
    assert any("TATOR_EMBEDDING_STORE_BYTES" in note for note in report["notes"])


def test_killed_twice_in_the_middle_nothing_is_encoded_twice(studio: Studio, tmp_path: Path) -> None:
    encoder, pictures = Encoder(), Pictures()
    for stop in (40, 90):

        def killed(done: int, total: int, what: str, stop: int = stop) -> None:
            if len(encoder.stored) >= stop:
                raise JobCancelled

        with pytest.raises(JobCancelled):
            shard(encoder, on_progress=killed, pictures=pictures)
        assert stop <= len(encoder.stored) < stop + 10
    report = shard(encoder, pictures=pictures)
    assert set(encoder.encodings.values()) == {1} and len(encoder.stored) == COUNT - 2
    assert report["there"] + report["encoded"] + report["unreadable"] == COUNT
    assert sum(pictures.fetched.values()) < COUNT + 40, "what was done is not even fetched again"


def test_what_could_not_be_read_is_tried_again(studio: Studio) -> None:
    encoder, pictures = Encoder(), Pictures()
    assert shard(encoder, pictures=pictures)["unreadable"] == 1
    pictures.broken = ""  # the server it comes from answers again
    again = shard(encoder, pictures=pictures)
    assert (again["encoded"], again["unreadable"]) == (1, 0) and pictures.fetched["/13.png"] == 2
    assert sum(pictures.fetched.values()) == COUNT + 1


def test_shards_share_the_pages_and_no_picture(studio: Studio, jobs: Any) -> None:
    encoder = Encoder(0.002)
    reports: list[Any] = []
    threads = [
        threading.Thread(target=lambda one=one: reports.append(shard(encoder, one, 3, jobs.connection)))  # type: ignore[misc]
        for one in range(3)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join(30)
    assert len(reports) == 3 and studio.pages == {1: 1, 2: 1, 3: 1}
    assert set(encoder.encodings.values()) == {1} and len(encoder.stored) == COUNT - 2
    assert sum(one["tasks"] for one in reports) == COUNT
    assert not jobs.connection.keys("tator:warm:*"), "claims are given back"


def test_a_picture_that_another_shard_claims_is_waited_for(studio: Studio, jobs: Any) -> None:
    image = Pictures().fetch("/5.png").image
    jobs.connection.set(f"tator:warm:starter-1:{image}", "warm-7-other")
    threading.Timer(0.5, lambda: jobs.connection.delete(f"tator:warm:starter-1:{image}")).start()
    encoder = Encoder()
    begun = time.monotonic()
    shard(encoder, 0, 1, jobs.connection)
    assert image in encoder.stored and time.monotonic() - begun >= 0.4


def test_a_shard_that_is_none() -> None:
    with pytest.raises(ValidationError, match="counted from 0"):
        WarmUp(project=1, shards=2, shard=2)
