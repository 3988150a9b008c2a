"""A whole project encoded ahead: every picture's embedding on disk before anybody opens a task.

A project is cut into shards, a page of tasks to each in turn, so that workers on several hosts share it. Which
pictures are there is asked of the engine's store, so whatever ended an attempt, nothing is encoded a second time;
a claim in Redis keeps two shards from encoding the same picture, which may stand in several tasks, at once.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, cast

import redis

from label_config.interface import Interface
from tator_ml.engine.client import EngineAway
from tator_ml.engine.messages import Busy, Status
from tator_ml.engine.routing import open_engines
from tator_ml.images.decode import ImageError
from tator_ml.images.fetch import ImageFetcher, ImageRef
from tator_ml.jobs.connection import connect_patiently
from tator_ml.learning.stores import image_store, project_choices
from tator_sdk.requests import WarmUp
from tator_sdk.settings import Settings
from tator_sdk.studio import sentences
from training.job import Job, run_job
from training.sweep import project_of

DONE_FILE = "done.jsonl"  # addresses that need no further look
PAGE_TASKS = 100
CLAIM_SECONDS = 900  # longer than any picture takes; whose worker died, it is taken over by then
POSTPONED_SECONDS = 0.5
AWAY_SECONDS = (1.0, 3.0, 10.0, 30.0)  # an engine that ended is started again by itself
MOST_NOTES = 100


class Keeps(Protocol):
    """What this job needs of an engine."""

    def keep(self, image: str, segmenter: str | None = None) -> bool:
        """Have a picture's embedding on disk; whether it was encoded now."""
        ...

    def segmenter_version(self, name: str | None = None) -> str:
        """Version of the segmenter of a name."""
        ...

    def status(self) -> Status:
        """What the engine is doing now."""
        ...


class Fetches(Protocol):
    """Addresses → pictures in the store."""

    def fetch(self, address: str, task_id: int | None = None) -> ImageRef:
        """Bring the picture of an address into the store."""
        ...


class Claims:
    """Which job encodes which picture; without Redis this job has all of them."""

    def __init__(self, connection: redis.Redis | None, version: str, owner: str) -> None:
        self._connection = connection
        self._prefix = f"tator:warm:{version}:"
        self._owner = owner

    def take(self, image: str) -> bool:
        """Claim a picture; granted again to the job that has it, which may have died in between."""
        if self._connection is None:
            return True
        key = self._prefix + image
        if self._connection.set(key, self._owner, nx=True, ex=CLAIM_SECONDS):
            return True
        return cast(bytes | None, self._connection.get(key)) in (None, self._owner.encode())

    def give(self, image: str) -> None:
        """Give a claim back."""
        if self._connection is not None:
            self._connection.delete(self._prefix + image)


@dataclass
class Report:
    """What a shard did.

    Attributes:
        tasks: looked at.
        pictures: of them.
        encoded: pictures that were encoded now.
        there: that were on disk before.
        unreadable: that could not be had.
        notes: what went wrong, in sentences.
    """

    tasks: int = 0
    pictures: int = 0
    encoded: int = 0
    there: int = 0
    unreadable: int = 0
    notes: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        """Keep a sentence, up to as many as anybody reads."""
        if len(self.notes) < MOST_NOTES and sentence not in self.notes:
            self.notes.append(sentence)


Place = tuple[str, int]
"""Address of a picture and the task it stands in."""
Ended = Literal["kept", "unreadable", "elsewhere"]
"""How it ended: on disk, not to be had, or another shard is at it."""


def run(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """Encode the shard of a :class:`WarmUp` request, given as JSON values, as a worker's job."""
    settings = Settings()
    with connect_patiently(settings) as connection:
        return run_job(
            job_id, lambda job, settings: warm(WarmUp.model_validate(request), settings, job, connection=connection)
        )


def warm(
    request: WarmUp,
    settings: Settings,
    job: Job,
    engine: Keeps | None = None,
    fetcher: Fetches | None = None,
    connection: redis.Redis | None = None,
) -> dict[str, Any]:
    """Have every picture of a shard encoded and on disk.

    Args:
        request: which project, and which part of it.
        settings: of this installation.
        job: takes progress and log; may stop the work; its folder keeps what is done.
        engine: encodes; by default the running one.
        fetcher: of pictures; by default one over the settings' store.
        connection: where shards claim pictures; None where no other shard runs.

    Returns:
        What was done, as JSON values.

    Raises:
        TatorError: in a sentence.
    """
    begun = time.monotonic()
    with ExitStack() as ends:
        store = image_store(settings)
        engine = engine or ends.enter_context(closing(open_engines(settings, store)))
        fetcher = fetcher or ends.enter_context(closing(ImageFetcher(settings, store)))
        return _warm(request, settings, job, engine, fetcher, connection, begun)


def _warm(
    request: WarmUp, settings: Settings, job: Job, engine: Keeps, fetcher: Fetches, connection: redis.Redis | None,
    begun: float,
) -> dict[str, Any]:  # fmt: skip
    studio, about, interface = project_of(settings, request.project)
    segmenter = request.segmenter or project_choices(settings).get(request.project).clicks_by
    version = engine.segmenter_version(segmenter)
    shard = _Shard(request, job, fetcher, engine, segmenter, Claims(connection, version, job.id))
    count = int(about.task_number or 0)
    tasks = _tasks(studio, settings.label_studio_url, request, count)
    report = shard.work(_places(tasks, interface, shard.report), _share(count, request))
    status = engine.status()
    if status.store_budget_bytes and status.store_bytes > 0.95 * status.store_budget_bytes:
        report.note("The store of embeddings is full, so the oldest go: raise TATOR_EMBEDDING_STORE_BYTES.")
    for note in report.notes:
        job.log(note)
    seconds = round(time.monotonic() - begun, 2)
    job.log(f"{report.pictures} pictures: {report.encoded} encoded, {report.there} were there; {seconds} s")
    return {**asdict(report), "project": request.project, "segmenter": version, "seconds": seconds,
            "shard": request.shard, "shards": request.shards}  # fmt: skip


class _Shard:
    """The pictures of one shard, a bounded number at once."""

    def __init__(
        self, request: WarmUp, job: Job, fetcher: Fetches, engine: Keeps, segmenter: str | None, claims: Claims
    ) -> None:
        self.report = Report()
        self._request = request
        self._job = job
        self._fetcher = fetcher
        self._engine = engine
        self._segmenter = segmenter
        self._claims = claims
        self._done = self._finished_before()

    def work(self, places: Iterator[Place], total: int) -> Report:
        """Encode them.

        Args:
            places: of pictures.
            total: tasks in all, for the progress.
        """
        postponed: list[Place] = []
        running: dict[Future[bool | None], Place] = {}
        pool = ThreadPoolExecutor(self._request.in_flight, thread_name_prefix="tator-warm")
        try:
            with (self._job.folder / DONE_FILE).open("a") as file:

                def collect(keep: int) -> None:
                    while len(running) > keep:
                        for future in wait(running, return_when=FIRST_COMPLETED).done:
                            place = running.pop(future)
                            ended = self._count(future)
                            if ended == "elsewhere":
                                postponed.append(place)
                            elif ended == "kept":  # what could not be read is tried again by the next attempt
                                file.write(json.dumps(place[0]) + "\n")
                                file.flush()
                        self._job.progress(self.report.tasks, max(total, self.report.tasks), "encoding pictures")

                for place in places:
                    if place[0] in self._done:
                        self.report.there += 1
                        continue
                    collect(self._request.in_flight - 1)
                    running[pool.submit(self._keep, *place)] = place
                collect(0)
                while postponed:  # another shard has them: it may die yet, then they are ours
                    time.sleep(POSTPONED_SECONDS)
                    self._job.check()
                    again, postponed[:] = list(postponed), []
                    for place in again:
                        running[pool.submit(self._keep, *place)] = place
                    collect(0)
        finally:
            pool.shutdown(cancel_futures=True)
        self._job.progress(total, total, "encoding pictures")
        return self.report

    def _keep(self, address: str, task: int) -> bool | None:
        """Whether it was encoded now; None where another shard is at it."""
        image = self._fetcher.fetch(address, task).image
        if not self._claims.take(image):
            return None
        for seconds in (*AWAY_SECONDS, None):
            try:
                made = self._engine.keep(image, self._segmenter)
                self._claims.give(image)
                return made
            except ImageError:
                self._claims.give(image)
                raise
            except (EngineAway, Busy):
                if seconds is None:
                    raise
                time.sleep(seconds)
        raise AssertionError("not reached")

    def _count(self, future: Future[bool | None]) -> Ended:
        try:
            made = future.result()
        except ImageError as error:
            self.report.unreadable += 1
            self.report.note(str(error))
            return "unreadable"
        if made is None:
            return "elsewhere"
        self.report.encoded += made
        self.report.there += not made
        return "kept"

    def _finished_before(self) -> set[str]:
        """Addresses that an earlier attempt of this job was through with."""
        with suppress(FileNotFoundError):
            found = set()
            for line in (self._job.folder / DONE_FILE).read_text().splitlines():
                with suppress(ValueError):  # the last line of a crash
                    found.add(str(json.loads(line)))
            return found
        return set()


def _share(count: int, request: WarmUp) -> int:
    """Tasks of this shard."""
    pages = range(request.shard, math.ceil(count / PAGE_TASKS), request.shards)
    return sum(min(PAGE_TASKS, count - page * PAGE_TASKS) for page in pages)


def _tasks(studio: Any, url: str, request: WarmUp, count: int) -> Iterator[Any]:
    """Tasks of the shard's pages; never read one by one, which would count as opening them."""
    from label_studio_sdk.core.api_error import ApiError

    for page in range(request.shard + 1, math.ceil(count / PAGE_TASKS) + 1, request.shards):
        with sentences(url):
            try:
                found = studio.tasks.list(
                    project=request.project, page=page, page_size=PAGE_TASKS, fields="task_only"
                ).items
            except ApiError as error:
                if error.status_code == 404:  # tasks were deleted meanwhile
                    return
                raise
        yield from found or []


def _places(tasks: Iterator[Any], interface: Interface, report: Report) -> Iterator[Place]:
    """The pictures of tasks, each address once."""
    seen: set[str] = set()
    for task in tasks:
        report.tasks += 1
        for image in interface.images:
            for address in image.urls(dict(task.data or {})):
                if address not in seen:
                    seen.add(address)
                    report.pictures += 1
                    yield address, int(task.id)
