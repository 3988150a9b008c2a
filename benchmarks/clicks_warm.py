"""A whole project encoded ahead by one worker and by two, each with an engine of one thread; killed in the middle."""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.report import Figure
from benchmarks.station import SCENES, pid_of, say, until
from demo.environment import ENVIRONMENT
from demo.stack import DemoSettings, DemoStack
from label_config.build import build
from tator_ml import jobs
from tator_ml.engine.client import EngineClient
from tator_ml.jobs import JobRecord, JobRecords, connect_redis
from tator_ml.learning.stores import image_store
from tator_ml.running.processes import Part
from tator_ml.running.redis_server import redis_url
from tator_ml.up import engine_ready, tator
from tator_sdk.requests import WarmUp
from tator_sdk.settings import Settings
from tator_sdk.studio import open_studio
from training.starter.names import DISPLAY_NAMES
from training.starter.scenes import draw_scene

PICTURES, ROUNDS, KILLS = 200, 3, 2
DRAWN, FIRST_SEED = 8, 9_870_000


@dataclass
class Pair:
    """Label Studio with two workers, each with an engine of its own, on one home.

    Attributes:
        stack: Label Studio, Redis, web, and the first of both.
        settings: of the first and the second worker.
        engines: the two.
        folder: of pictures.
    """

    stack: DemoStack
    settings: tuple[Settings, Settings]
    engines: tuple[EngineClient, EngineClient]
    folder: Path
    made: int = 0

    def project(self) -> int:
        """A project of pictures that nobody has seen: few drawings, each time with another grain."""
        studio: Any = open_studio(self.settings[0])
        project = studio.projects.create(
            title=f"Warm {self.made}", label_config=build("boxes", list(DISPLAY_NAMES.values()), None)
        )
        paths = [self._picture(number) for number in range(PICTURES)]
        self.made += PICTURES
        studio.projects.import_tasks(id=project.id, request=[{"data": {"image": str(path)}} for path in paths])
        return int(project.id)

    def _picture(self, number: int) -> Path:
        rng = np.random.default_rng(self.made + number)
        drawing = _drawings()[number % DRAWN]
        grain = rng.integers(-3, 4, drawing.shape)
        path = self.folder / f"{self.made + number}.png"
        cv2.imwrite(str(path), (drawing + grain).clip(0, 255).astype(np.uint8))
        return path

    @contextmanager
    def on_a_core_each(self) -> Iterator[None]:
        """Each worker with its engine on a core of its own, as if on a machine of its own."""
        pairs = (("engine", "worker"), ("engine-2", "worker-2"))
        processes = [[psutil.Process(pid_of(self.settings[0], name)) for name in names] for names in pairs]
        cores = processes[0][0].cpu_affinity() or []
        for number, members in enumerate(processes):
            for process in members:
                for task in process.threads():
                    os.sched_setaffinity(task.id, {cores[number % len(cores)]})
        try:
            yield
        finally:
            for process in (process for members in processes for process in members):
                for task in process.threads():
                    os.sched_setaffinity(task.id, set(cores))

    def encodings(self) -> int:
        """Of both engines since their start."""
        return sum(engine.status().encodings for engine in self.engines)

    def start(self, project: int, shards: int) -> list[str]:
        """Start the jobs; returns their ids."""
        made = []
        for shard in range(shards):
            request = WarmUp(project=project, shards=shards, shard=shard)
            made.append(
                jobs.start(
                    self.settings[0], "warm", request.model_dump(mode="json"), project=project, title="benchmark"
                )
            )
        return [one.id for one in made]

    def ended(self, ids: Sequence[str]) -> list[JobRecord]:
        """The jobs, once all have ended."""
        with connect_redis(self.settings[0]) as connection:
            records = JobRecords(connection)
            until(lambda: all(records.get(one).over for one in ids), 600)
            found = [records.get(one) for one in ids]
        if any(one.status != "done" for one in found):
            raise SystemExit(f"A job failed: {[one.error for one in found]}")
        return found


_DRAWN: list[NDArray[np.int16]] = []


def _drawings() -> list[NDArray[np.int16]]:
    while len(_DRAWN) < DRAWN:
        _DRAWN.append(draw_scene(FIRST_SEED + len(_DRAWN), SCENES).image.astype(np.int16))
    return _DRAWN


@contextmanager
def pair() -> Iterator[Pair]:
    """Start everything."""
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        folder = Path(home) / "pictures"
        folder.mkdir()
        wanted = {"port": 19190, "torch_threads": 1, "image_roots": (folder,), "offline": True}
        with DemoStack(DemoSettings(Path(home), studio_port=18180, tator=wanted), say) as stack:
            first = stack.settings
            second = first.model_copy(update={"engine_address": str(Path(home) / "run" / "engine-2.sock")})
            environment = {**second.environment(), "TATOR_REDIS_URL": redis_url(second)}
            engines = EngineClient(first, image_store(first)), EngineClient(second, image_store(second))
            ready = lambda: engine_ready(engines[1])  # noqa: E731
            stack.parts.start(Part("engine-2", tator("engine"), ready, 120, environment=environment))
            stack.parts.start(Part("worker-2", tator("worker"), lambda: True, 60, environment=environment))
            yield Pair(stack, (first, second), engines, folder)
            for engine in engines:
                engine.close()


def two_workers(one: Pair) -> list[Figure]:
    """Pictures a second of two workers, of one; by turns, on a core each and on all cores.

    The rate is that between the first and the last encoding; with the start of the jobs, which reads a page of tasks
    and imports the SDK, it is reported too.
    """
    with one.on_a_core_each():
        rates, whole = _rates(one, ROUNDS)
    free, _ = _rates(one, 1)
    return [
        Figure("warm.two_workers", rates[2] / rates[1], "of one", "higher", 1.6),
        Figure("warm.two_workers_with_start", whole[2] / whole[1], "of one", "higher"),
        Figure("warm.two_workers_on_all_cores", free[2] / free[1], "of one", "higher"),
        Figure("warm.pictures_per_second", rates[1], "1/s", "higher"),
    ]


def _rates(one: Pair, rounds: int) -> tuple[dict[int, float], dict[int, float]]:
    """Pictures a second by number of workers: while they are encoded, and from the start of the jobs."""
    steady: dict[int, list[float]] = {1: [], 2: []}
    whole: dict[int, list[float]] = {1: [], 2: []}
    for shards in [1, 2] * (rounds + 1):
        project, before = one.project(), one.encodings()
        ids = one.start(project, shards)
        begun = _when(one, before + 1)
        ended = _when(one, before + PICTURES)
        results = [record.result or {} for record in one.ended(ids)]
        steady[shards].append((PICTURES - 1) / (ended - begun))
        whole[shards].append(PICTURES / max(float(result["seconds"]) for result in results))
        say(f"{shards} workers: {steady[shards][-1]:.1f} pictures a second")
    # the first ones load what is loaded once
    first, second = (
        {number: statistics.median(rates[1:]) for number, rates in found.items()} for found in (steady, whole)
    )
    return first, second


def _when(one: Pair, encodings: int) -> float:
    while one.encodings() < encodings:
        time.sleep(0.01)
    return time.monotonic()


def killed(one: Pair) -> list[Figure]:
    """Both workers at work, and twice in the middle one is killed with the process that runs its job."""
    project, before = one.project(), one.encodings()
    ids = one.start(project, 2)
    for number in range(1, KILLS + 1):
        goal = before + number * PICTURES // (KILLS + 1)
        while one.encodings() < goal:
            time.sleep(0.01)
        name = ("worker", "worker-2")[number % 2]
        _kill(pid_of(one.settings[0], name))
        one.stack.parts.revive()
    one.ended(ids)
    made = one.encodings() - before
    return [
        Figure("warm.encoded_twice", made - PICTURES, "pictures", "lower", 0),
        Figure("warm.not_encoded", PICTURES - made, "pictures", "lower", 0),
    ]


def _kill(worker: int) -> None:
    process = psutil.Process(worker)
    for each in [process, *process.children(recursive=True)]:
        os.kill(each.pid, signal.SIGKILL)
    process.wait(10)


def whole_project() -> list[Figure]:
    """Against a real Label Studio."""
    if not (ENVIRONMENT / "bin" / "label-studio").exists():
        raise SystemExit("This figure needs a real Label Studio: make test builds its environment.")
    begun = time.monotonic()
    with pair() as one:
        say(f"everything runs after {time.monotonic() - begun:.0f} s")
        return [*two_workers(one), *killed(one)]
