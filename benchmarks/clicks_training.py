"""Clicks while a worker trains class heads on the same machine, and what standing aside costs the training."""

from __future__ import annotations

import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.material import yolo_folder
from benchmarks.report import Figure
from benchmarks.station import Station, Task, quantile, say, station, until
from tator_ml import jobs
from tator_ml.jobs import JobRecords, connect_redis
from tator_ml.learning.embedder import LocalEncoder
from tator_ml.learning.stores import image_store
from tator_sdk.requests import HeadTraining
from tator_sdk.settings import Settings
from training.clip.train import train
from training.job import LocalJob
from training.starter.scenes import SceneSettings

SCENES = SceneSettings(size_wh=(640, 480), min_side=40, max_side=200, objects=(5, 9))
TRAINED, COST_TRAINED = range(9_850_000, 9_850_120), range(9_851_000, 9_851_060)
PICTURES, ROUNDS, CLICKS = 4, 4, 30  # each round idle and under training, by turns
PAUSE_SECONDS = (0.3, 1.1)  # between an answer and the next click
PAIRS = 9


@dataclass
class Trainings:
    """One training after the other on the station's worker, as long as it is wanted.

    Attributes:
        boxes: learned from in trainings that ended.
        seconds: that those took.
    """

    boxes: int = 0
    seconds: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def going_on(self, settings: Settings, folder: Path) -> Iterator[None]:
        """Train until the block ends, and a training that has begun to its end."""
        self.ended.clear()
        thread = threading.Thread(target=self._train, args=(settings, folder))
        thread.start()
        try:
            yield
        finally:
            self.ended.set()
            thread.join()

    @property
    def rate(self) -> float:
        """Boxes a second."""
        return self.boxes / self.seconds

    def once(self, settings: Settings, folder: Path) -> None:
        """One whole training, nothing of it known before."""
        request = HeadTraining(images_path=folder, cache=False)
        with connect_redis(settings) as connection:
            made = jobs.start(settings, "clip", request.model_dump(mode="json"), title="benchmark")
            records = JobRecords(connection)
            until(lambda: records.get(made.id).over, 600)
            record = records.get(made.id)
        if record.status != "done" or not record.result:
            raise SystemExit(f"The training failed: {record.error}")
        self.boxes += int(record.result["boxes"])
        self.seconds += float(record.result["seconds"])

    def _train(self, settings: Settings, folder: Path) -> None:
        while not self.ended.is_set():
            self.once(settings, folder)


def clicks(one: Station, tasks: list[Task], rng: random.Random, count: int) -> list[float]:
    """Seconds from request to answer of somebody who clicks with pauses on warm pictures."""
    taken = []
    for number in range(count):
        time.sleep(rng.uniform(*PAUSE_SECONDS))
        task = tasks[number % len(tasks)]
        taken.append(one.ask(task, number // len(tasks) % len(task.scene.objects))[0])
    return taken


def while_training() -> list[Figure]:
    """SAM 2.1 tiny, idle and while trainings go on, by turns."""
    rng = random.Random(3)
    with station("sam2-tiny") as one:
        folder = one.folder / "trained"
        boxes = yolo_folder(folder, TRAINED, SCENES)
        tasks = [one.task() for _ in range(PICTURES)]
        for task in tasks:
            one.open(task)
        alone, under = Trainings(), Trainings()
        alone.once(one.settings, folder)  # loads what is loaded once
        alone = Trainings()
        alone.once(one.settings, folder)
        idle, busy = [], []
        for number in range(ROUNDS):
            idle += clicks(one, tasks, rng, CLICKS)
            with under.going_on(one.settings, folder):
                time.sleep(1.0)  # the job begins
                busy += clicks(one, tasks, rng, CLICKS)
            say(f"round {number + 1} of {ROUNDS}: idle {statistics.median(idle) * 1000:.0f} ms, "
                f"while training {statistics.median(busy) * 1000:.0f} ms")  # fmt: skip
        alone.once(one.settings, folder)
    idle_p50, idle_p99 = statistics.median(idle), quantile(idle, 0.99)
    return [
        Figure("clicks.training_p50", statistics.median(busy) / idle_p50, "of idle", "lower", 1.5),
        Figure("clicks.training_p99", quantile(busy, 0.99) / idle_p99, "of idle", "lower", 2.0),
        Figure("clicks.idle_p50_ms", 1000 * idle_p50, "ms", "lower"),
        Figure("clicks.idle_p99_ms", 1000 * idle_p99, "ms", "lower"),
        Figure("clicks.training_throughput", under.rate / alone.rate, "of without clicks", "higher"),
        Figure("clicks.training_boxes", boxes, "boxes", "higher"),
        lease_cost(),
    ]


def lease_cost() -> Figure:
    """The same training with and without standing aside, while nobody clicks: what asking costs."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "images"
        yolo_folder(folder, COST_TRAINED, SCENES)
        settings = {
            yields: Settings(_env_file=None, home=Path(home) / "home", yield_to_clicks=yields)
            for yields in (True, False)
        }
        computes = LocalEncoder(image_store(settings[True]), "cpu", settings[True].image_max_pixels, 1)
        computes.encoder_version("starter")  # loading belongs to neither
        request = HeadTraining(images_path=folder, cache=False, tolerance=1e-9, max_iter=200)  # many short steps
        taken: dict[bool, list[float]] = {True: [], False: []}
        for number in range(2 * PAIRS + 2):
            yields = number % 2 == 0
            begun = time.perf_counter()
            train(request, settings[yields], LocalJob(settings[yields], "bench"), computes)
            if number >= 2:
                taken[yields].append(time.perf_counter() - begun)
    # the quickest: whatever else this machine does only adds to a time
    return Figure("clicks.lease_cost", 1 - min(taken[False]) / min(taken[True]), "of throughput", "lower", 0.03)
