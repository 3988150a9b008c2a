"""Clicks while a worker trains class heads on the same machine, and what standing aside costs the training."""

from __future__ import annotations

import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from benchmarks.material import yolo_folder
from benchmarks.report import Figure
from benchmarks.station import Station, Task, quantile, say, seconds, station, until
from tator_ml import jobs
from tator_ml.jobs import JobRecords, connect_redis
from tator_ml.learning.embedder import LocalEncoder
from tator_ml.learning.stores import image_store
from tator_ml.running.lease import Bystander, ClickLease
from tator_sdk.requests import HeadTraining
from tator_sdk.settings import Settings
from training.clip.train import train
from training.job import LocalJob
from training.starter.scenes import SceneSettings

SCENES = SceneSettings(size_wh=(640, 480), min_side=40, max_side=200, objects=(5, 9))
TRAINED, COST_TRAINED = range(9_850_000, 9_850_120), range(9_851_000, 9_851_060)
PICTURES, ROUNDS, CLICKS = 4, 4, 30  # each round idle and under training, by turns
PAUSE_SECONDS = (0.3, 1.1)  # between an answer and the next click
TRAININGS = 8


@dataclass
class Trainings:
    """One training after the other on the station's worker, as long as it is wanted.

    Attributes:
        boxes: learned from in trainings that ended.
        seconds: that those took.
        failure: why there were no more, where one failed: nothing would be measured beside trainings then.
    """

    boxes: int = 0
    seconds: float = 0.0
    failure: str = ""
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
        if self.failure:
            raise SystemExit(self.failure)

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
        try:
            while not self.ended.is_set():
                self.once(settings, folder)
        except BaseException as error:  # told by the thread that measures
            self.failure = str(error) or type(error).__name__


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
    """The share of a real training that goes into asking for clicks, while an engine is there and nobody clicks.

    The asking itself is timed. Two trainings differ by a tenth from one to the next here, which says nothing about a
    share of hundredths: with and without asking, medians of twelve were apart by 2.5 %, their minima by -11 %.
    """
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "images"
        yolo_folder(folder, COST_TRAINED, SCENES)
        settings = Settings(_env_file=None, home=Path(home) / "home")
        ClickLease(settings.home / "run", "cpu")  # an engine's, which each look reads
        computes = LocalEncoder(image_store(settings), "cpu", settings.image_max_pixels, 1)
        computes.encoder_version("starter")  # loading is no part of it
        request = HeadTraining(images_path=folder, cache=False, tolerance=1e-9, max_iter=200)  # many short steps
        shares = []
        for number in range(TRAININGS):
            asking: list[float] = []
            with mock.patch.object(Bystander, "stand_aside", _timed(Bystander.stand_aside, asking)):
                taken = seconds(lambda: train(request, settings, LocalJob(settings, "bench"), computes))
            assert asking, "the training never asked"
            if number:
                shares.append(sum(asking) / taken)
        say(f"asked {len(asking)} times in {taken:.2f} s")
    return Figure("clicks.lease_cost", statistics.median(shares), "of throughput", "lower", 0.03)


def _timed(method: Callable[[Bystander], None], taken: list[float]) -> Callable[[Bystander], None]:
    def timed(self: Bystander) -> None:
        taken.append(seconds(lambda: method(self)))

    return timed
