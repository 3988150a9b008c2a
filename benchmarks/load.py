"""Load: an hour's clicks of 32 annotators through a real Label Studio, while trainings run on the same machine.

Each person has tasks of their own and does what the editor does: opens a task, fetches the picture, points at every
object with pauses, saves a draft and submits. The number of clicks is an hour's; pauses are ``SPEED`` times shorter
than people's, so that it is over sooner. A worker trains one class head after the other all the time, and the
project's own head is trained from what is submitted, as anywhere. Label Studio has a PostgreSQL: with SQLite it
answers some of so many people's requests with "database is locked".
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from benchmarks.annotators import Annotator, Record
from benchmarks.clicks_training import SCENES as TRAINED_SCENES
from benchmarks.clicks_training import Trainings
from benchmarks.material import yolo_folder
from benchmarks.postgres import private_postgres
from benchmarks.report import Figure
from benchmarks.station import pid_of, quantile, say
from demo.labelled import LabelledProject, labelled_project
from demo.people import join
from demo.pictures import SETTINGS as SCENES
from demo.pictures import classes
from demo.stack import DemoSettings, DemoStack
from tator_sdk.settings import Settings
from training.starter.names import display_name

PEOPLE = 32
TASKS_EACH = int(os.environ.get("LOAD_TASKS", "22"))  # of 5.5 objects each: 120 clicks, one every 30 seconds
THINK_SECONDS = 27.0  # between clicks; opening and submitting take the rest of the 30
SPEED = float(os.environ.get("LOAD_SPEED", "4"))
SEEDS = range(9_700_000, 9_700_000 + PEOPLE * TASKS_EACH)
TRAINED = range(9_860_000, 9_860_120)
SAMPLE_SECONDS = 2.0
WARM_BYTES = 192 * 2**20  # full before the first look at the memory, so that only what leaks can grow
PARTS = ("engine", "web", "worker")
LANES = ("click", "preload", "batch")


def measure() -> Iterator[Figure]:
    """All figures."""
    with ExitStack() as opened:
        home = Path(opened.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))  # socket paths are short
        tator = {"port": 19290, "warm_bytes": WARM_BYTES, "offline": True}
        database = opened.enter_context(private_postgres())
        wanted = DemoSettings(home, studio_port=18280, tator=tator, studio_variables=database)
        stack = opened.enter_context(DemoStack(wanted, say))
        project = opened.enter_context(
            labelled_project(stack, "Load", SEEDS, display_name, classes(), scenes=SCENES, report=say)
        )
        record = Record()
        people = _annotators(stack, project, record)
        folder = home / "trained"
        yolo_folder(folder, TRAINED, TRAINED_SCENES)
        trainings, usage = Trainings(), Usage(stack)
        say(f"{PEOPLE} people, {sum(len(task.boxes) for task in project.tasks)} clicks")
        begun = time.monotonic()
        with usage, trainings.going_on(stack.settings, folder):
            _all_at_once(people, record)
        minutes = (time.monotonic() - begun) / 60
        yield from _answers(record, minutes)
        yield from _lanes(stack.settings)
        yield from usage.figures()
        yield Figure("load.trained_boxes", trainings.boxes, "boxes", "higher")


def _annotators(stack: DemoStack, project: LabelledProject, record: Record) -> list[Annotator]:
    people = [join(stack.studio, f"annotator-{number}@example.com") for number in range(PEOPLE)]
    share = len(project.tasks) // PEOPLE
    return [
        Annotator(person, project, project.tasks[number * share : (number + 1) * share], THINK_SECONDS / SPEED,
                  record, number)
        for number, person in enumerate(people)
    ]  # fmt: skip


def _all_at_once(people: Sequence[Annotator], record: Record) -> None:
    with ThreadPoolExecutor(len(people)) as pool:
        working = [pool.submit(one.work) for one in people]
        while wait(working, timeout=30).not_done:
            clicks = record.seconds["click"]
            say(f"{record.submitted} submitted, {len(clicks)} clicks, {len(record.errors)} errors, the last "
                f"hundred clicks' median {statistics.median(clicks[-100:] or [0]):.3f} s")  # fmt: skip
    for one in working:
        one.result()


def _answers(record: Record, minutes: float) -> Iterator[Figure]:
    for error in record.errors[:10]:
        say(error)
    sent = sum(len(taken) for taken in record.seconds.values())
    yield Figure("load.errors", len(record.errors), f"of {sent} requests", "lower", 0)
    yield Figure("load.clicks", len(record.seconds["click"]), "clicks", "higher")
    yield Figure("load.empty", record.empty, "clicks", "lower")
    yield Figure("load.elsewhere", record.elsewhere, "answers", "lower")
    yield Figure("load.submitted", record.submitted, "annotations", "higher", PEOPLE * TASKS_EACH)
    yield Figure("load.minutes", minutes, "minutes", "lower")
    yield Figure("load.rate", len(record.seconds["click"]) / minutes / 60, "clicks a second", "higher")
    for what, taken in record.seconds.items():
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            yield Figure(f"load.{what}_{name}_ms", 1000 * quantile(taken, share), "ms", "lower")


def _lanes(settings: Settings) -> Iterator[Figure]:
    """Percentiles as the engine keeps them, waiting included."""
    status = httpx.get(f"{settings.backend_url}/tator/api/status", timeout=10).raise_for_status().json()
    for lane in LANES:
        latency = status["latencies"].get(lane)
        if latency is None:
            continue
        yield Figure(f"load.lane_{lane}_count", latency["count"], "requests", "higher")
        for name in ("p50", "p95", "p99"):
            yield Figure(f"load.lane_{lane}_{name}_ms", 1000 * latency[name], "ms", "lower")


@dataclass
class Usage:
    """Memory and open files of the parts while a block runs.

    Attributes:
        seen: rows of bytes by part, and files of the parts that stay.
    """

    stack: DemoStack
    seen: list[dict[str, tuple[int, int]]] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> None:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def figures(self) -> Iterator[Figure]:
        """Medians of the last tenth against those of the tenth after the middle of what was seen."""
        tenth = max(len(self.seen) // 10, 1)
        middle = self.seen[5 * tenth : 6 * tenth]
        last = self.seen[-tenth:]

        def of(rows: Sequence[dict[str, tuple[int, int]]], part: str, what: int) -> float:
            return statistics.median(row[part][what] for row in rows)

        for part in (*PARTS, "label_studio"):
            before, after = of(middle, part, 0), of(last, part, 0)
            ours = part in ("engine", "web")
            yield Figure(f"load.{part}_mib", after / 2**20, "MiB", "lower")
            yield Figure(f"load.{part}_growth", 100 * (after / before - 1), "%", "lower", 5 if ours else None)
            files = of(last, part, 1) - of(middle, part, 1)
            yield Figure(f"load.{part}_files", of(last, part, 1), "open files", "lower")
            yield Figure(f"load.{part}_files_growth", files, "open files", "lower", 4 if ours else None)

    def _look(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            with suppress(psutil.Error):  # a child that ended while it was looked at
                self.seen.append({part: _used(part, pid) for part, pid in self._pids().items()})

    def _pids(self) -> dict[str, int]:
        pids = {part: pid_of(self.stack.settings, part) for part in PARTS}
        return {**pids, "label_studio": int(self.stack.studio.pid or 0)}


def _used(part: str, pid: int) -> tuple[int, int]:
    """Resident bytes and open files of a part, without the processes in which a worker runs its jobs."""
    process = psutil.Process(pid)
    members = [process] if part == "worker" else [process, *process.children(recursive=True)]
    return sum(one.memory_info().rss for one in members), sum(one.num_fds() for one in members)
