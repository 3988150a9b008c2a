"""Predictions pushed while worker and Label Studio are killed: what is lost, doubled or replaced; and how fast."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from benchmarks.data_studio import DATABASE, box_result, make_project, make_tasks, private_studio, say
from benchmarks.report import Figure
from demo.label_studio import LabelStudio
from tator_sdk.bulk import open_bulk
from tator_sdk.push import Moment, PredictionsOfVersion
from tator_sdk.settings import Settings

PREDICTIONS, TOGETHER, OTHERS = 20_000, 2_500, 1_000
VERSION, OTHER = "head-1/relabel-1-bench", "somebody else's"
MOMENTS: tuple[Moment, ...] = ("before sending", "sent", "answered")
RANDOM_KILLS, SEED = 5, 7
TRY_SECONDS = 300


def measure(predictions: int = PREDICTIONS, together: int = TOGETHER, longest: float = 25.0) -> list[Figure]:
    with private_studio() as (studio, settings):
        rate, share = undisturbed(settings, predictions)
        say(f"{rate:.0f} predictions a second, undisturbed")
        torture = Torture(studio, settings, predictions, together)
        torture.run(longest)
        lost, doubled, replaced = torture.verdict()
    return [
        Figure("data.lost", lost, "predictions", "lower", 0),
        Figure("data.doubled", doubled, "predictions", "lower", 0),
        Figure("data.replaced", replaced, "predictions", "lower", 0),
        Figure("data.kills", len(torture.kills), "kills", "higher", 2 * len(MOMENTS) + RANDOM_KILLS),
        Figure("data.push_per_second", rate, "1/s", "higher"),
        Figure("data.push_in_endpoint", share, "of time", "higher"),
    ]


def undisturbed(settings: Settings, predictions: int) -> tuple[float, float]:
    """Predictions a second from the first question to the last count, and the share of it that the endpoint took."""
    project = make_project(settings, "Undisturbed")
    with open_bulk(settings) as api:
        tasks = make_tasks(api, project, predictions)
    waited, sent = 0.0, 0.0

    def moments(now: Moment) -> None:
        nonlocal waited, sent
        if now == "before sending":
            sent = time.perf_counter()
        elif now == "answered":
            waited += time.perf_counter() - sent

    begun = time.perf_counter()
    created = PredictionsOfVersion(settings, project, VERSION, moments).push(tasks, prediction, lambda _: None).created
    seconds = time.perf_counter() - begun
    if created != predictions:
        raise SystemExit(f"Only {created} of {predictions} predictions were created.")
    return predictions / seconds, waited / seconds


def prediction(task: int) -> dict[str, Any]:
    """Three boxes."""
    return {"result": box_result(task, task + 1, task + 2)}


@dataclass
class Torture:
    """A push that is killed again and again."""

    studio: LabelStudio
    settings: Settings
    predictions: int
    together: int
    kills: list[str] = field(default_factory=list)
    seen: dict[int, int] = field(default_factory=dict)
    replaced: int = 0

    def __post_init__(self) -> None:
        self.project = make_project(self.settings, "Killed")
        with open_bulk(self.settings) as api:
            self.tasks = make_tasks(api, self.project, self.predictions)
        others = self.tasks[:: max(1, self.predictions // OTHERS)]
        PredictionsOfVersion(self.settings, self.project, OTHER).push(
            others, lambda task: {"result": box_result(task)}, lambda _: None
        )
        self.others = self.ids(OTHER)

    def run(self, longest: float) -> None:
        """Every kill, and a last run that nothing disturbs; random kills come within ``longest`` seconds."""
        for moment in MOMENTS:
            for victim in ("worker", "studio"):
                self.kill_at(moment, victim)
        rng = random.Random(SEED)
        for number in range(RANDOM_KILLS):
            self.kill_after(rng.uniform(2.0, longest), ("worker", "studio")[number % 2])
        worker = self.worker("none", "none")
        if worker.wait(TRY_SECONDS * 2) != 0:
            raise SystemExit("The last run, which nothing disturbs, failed.")
        self.look("the last run")

    def kill_at(self, moment: Moment, victim: str) -> None:
        """A worker kills itself, or Label Studio, at a moment of its first request."""
        worker = self.worker(moment, victim)
        if victim == "studio":
            self.wait_for_end_of_studio(worker)
            self.restart()
        if worker.wait(TRY_SECONDS) == 0:
            raise SystemExit(f"The worker was not killed: {moment} never came.")
        self.kills.append(f"{victim}, {moment}")
        self.look(self.kills[-1])

    def kill_after(self, seconds: float, victim: str) -> None:
        """Kill a worker, or Label Studio under it, so long after the worker was started."""
        worker = self.worker("none", "none")
        time.sleep(seconds)
        over = worker.poll() is not None
        if victim == "worker":
            worker.kill()
        else:
            os.kill(self.studio.pid or 0, signal.SIGKILL)
            self.restart()
            time.sleep(min(seconds, 5.0))  # it notices, and begins to make up for it
            over |= worker.poll() is not None
            worker.kill()
        worker.wait()
        self.kills.append(f"{victim}, after {seconds:.1f} s" + (", when it was through" if over else ""))
        self.look(self.kills[-1])

    def worker(self, moment: str, victim: str) -> subprocess.Popen[bytes]:
        """A process that pushes what is missing."""
        command = [
            sys.executable, "-m", "benchmarks.data_push", str(self.project), str(self.together), moment, victim,
            str(self.studio.pid), str(self.tasks[0]), str(self.tasks[-1]),
        ]  # fmt: skip
        return subprocess.Popen(command, env={**os.environ, **self.settings.environment()})

    def wait_for_end_of_studio(self, worker: subprocess.Popen[bytes]) -> None:
        """Return once the worker has killed it."""
        deadline = time.monotonic() + TRY_SECONDS
        while time.monotonic() < deadline and worker.poll() is None:
            try:
                os.waitpid(self.studio.pid or 0, os.WNOHANG)
                os.kill(self.studio.pid or 0, 0)
            except (ProcessLookupError, ChildProcessError):
                return
            time.sleep(0.1)
        raise SystemExit("Label Studio was not killed.")

    def restart(self) -> None:
        """Start Label Studio again, where it was."""
        before = self.studio.url
        self.studio.stop()
        self.studio.start()
        if self.studio.url != before:
            raise SystemExit(f"Label Studio came back at {self.studio.url} instead of {before}.")

    def look(self, after: str) -> None:
        """Compare with what was there: a prediction that was seen keeps its id."""
        now = {task: min(ids) for task, ids in self.by_task().items()}
        gone = sum(now.get(task) != number for task, number in self.seen.items())
        self.replaced += gone
        self.seen = now
        say(f"{after}: {len(now)} of {self.predictions} tasks have theirs" + (f", {gone} REPLACED" if gone else ""))

    def by_task(self) -> dict[int, list[int]]:
        """Ids of the pushed predictions by task, oldest first."""
        found: dict[int, list[int]] = {}
        for number, task in self.ids(VERSION):
            found.setdefault(task, []).append(number)
        return found

    def ids(self, version: str) -> list[tuple[int, int]]:
        """Ids and tasks of predictions, out of Label Studio's own database: nothing of ours is believed."""
        address = f"file:{self.studio.home / DATABASE}?mode=ro"
        query = "SELECT id, task_id FROM prediction WHERE project_id = ? AND model_version = ? ORDER BY id"
        connection = sqlite3.connect(address, uri=True, timeout=60)
        try:
            return [(int(number), int(task)) for number, task in connection.execute(query, (self.project, version))]
        finally:
            connection.close()

    def verdict(self) -> tuple[int, int, int]:
        """Predictions lost, doubled, and replaced (those of others among them)."""
        counts = Counter(task for _, task in self.ids(VERSION))
        lost = sum(task not in counts for task in self.tasks)
        doubled = sum(count - 1 for count in counts.values())
        others = len(set(self.others) ^ set(self.ids(OTHER)))
        return lost, doubled, self.replaced + others


def work(project: int, together: int, moment: str, victim: str, studio: int, first: int, last: int) -> None:
    """The worker: pushes, and kills itself or Label Studio when the moment comes."""
    killed: list[str] = []

    def moments(now: Moment) -> None:
        if killed and now == "before sending":  # Label Studio is back: what comes is another try's
            os.kill(os.getpid(), signal.SIGKILL)
        if now == moment and not killed:
            killed.append(now)
            os.kill(studio if victim == "studio" else os.getpid(), signal.SIGKILL)

    target = PredictionsOfVersion(Settings(_env_file=None), project, VERSION, moments, together)
    tasks = list(range(first, last + 1))  # nobody else makes tasks there
    target.push(tasks, prediction, lambda _: None)


if __name__ == "__main__":
    numbers = [int(word) for word in (*sys.argv[1:3], *sys.argv[5:8])]
    work(numbers[0], numbers[1], sys.argv[3], sys.argv[4], *numbers[2:])
