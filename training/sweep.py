"""Going over the tasks of a project: a bounded number at once, each once, and taken up where a killed attempt stopped.

What comes of a task is a line in a journal of the job's folder; what is to be pushed is read from there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Protocol, TypeVar

from label_config.errors import LabelConfigError
from label_config.interface import Interface
from label_config.reader import read_cached
from tator_ml.engine.client import EngineAway
from tator_ml.engine.messages import Answer, Ask, Busy, Status
from tator_ml.images.fetch import ImageRef
from tator_ml.prompts.asking import AnswersAsks
from tator_sdk.errors import TatorError
from tator_sdk.patience import WAITS_SECONDS
from tator_sdk.push import PredictionsOfVersion, Pushed
from tator_sdk.settings import Settings
from tator_sdk.studio import StudioError, open_studio, sentences
from training.job import Job
from training.journal import Journal, line_at, lines_of

RETRY_SECONDS = 1.0
MOST_POSTPONED = 1000  # tasks with pictures that could not be had, tried once more in the end

Line = dict[str, Any]
"""What came of a task: ``task``, its number; ``unreadable``, how much could not be looked at; and more."""

Result = TypeVar("Result")


class Fetches(Protocol):
    """Addresses → pictures in the store."""

    def fetch(self, address: str, task_id: int | None = None) -> ImageRef:
        """Bring the picture of an address into the store."""
        ...


class ServesJobs(Protocol):
    """What jobs ask of an engine beside their work."""

    def segmenter_version(self, name: str | None = None) -> str:
        """Version of the segmenter of a name."""
        ...

    def status(self) -> Status:
        """What the engine is doing now."""
        ...


def project_of(settings: Settings, number: int) -> tuple[Any, Any, Interface]:
    """The client of Label Studio, a project as it has it, and its configuration as Tator understands it.

    Raises:
        TatorError: Label Studio does not answer, has no such project, or the configuration cannot be read.
    """
    studio: Any = open_studio(settings)
    with sentences(settings.label_studio_url):
        about = studio.projects.get(number)
    try:
        return studio, about, read_cached(str(about.label_config or ""))
    except LabelConfigError as error:
        raise TatorError(str(error)) from error


class Stopped(Exception):
    """The job ends; a task that is being worked on is given up."""


class Sweep:
    """Goes over tasks; may be begun again, and goes on with those that are left.

    Attributes:
        job: that is told.
        path: of the journal.
        stopped: set when the work is to end.
    """

    def __init__(self, job: Job, path: Path, in_flight: int) -> None:
        self.job = job
        self.path = path
        self.stopped = threading.Event()
        self._in_flight = in_flight

    def over(
        self,
        select: Callable[[], tuple[int, Iterator[Any]]],
        work: Callable[[Any], Line],
        count: Callable[[Line], int],
        said: Callable[[int, float], str],
    ) -> None:
        """Work on all tasks; a Label Studio that is away for a moment is asked again for those that are left.

        Args:
            select: asks for the tasks, as the SDK gives them, and how many there are.
            work: on one task; called by several threads at once.
            count: how much came of a task.
            said: the progress in words, of the sum of these counts in this attempt, and the seconds it took so far.

        Raises:
            TatorError: nobody can answer.
            JobCancelled, JobLost: the job is to stop; what is written stays.
        """
        for seconds in (*WAITS_SECONDS, None):
            try:
                total, tasks = select()
                self.run(tasks, total, work, count, said)
                return
            except StudioError as error:
                if seconds is None or not error.passing:
                    raise
                self.job.log(f"goes on in {seconds:g} s: {error}")
                time.sleep(seconds)

    def run(
        self,
        tasks: Iterator[Any],
        total: int,
        work: Callable[[Any], Line],
        count: Callable[[Line], int],
        said: Callable[[int, float], str],
    ) -> None:
        """Work on those tasks that no earlier attempt of the job has done; see :meth:`over`."""
        done = {int(line["task"]) for _, line in lines_of(self.path)}
        looked, before, begun, counted = 0, len(done), time.monotonic(), 0
        self.stopped.clear()
        if before:
            self.job.log(f"goes on behind {before} tasks that were looked at before")
        pool = ThreadPoolExecutor(self._in_flight, thread_name_prefix=f"tator-{self.job.id.partition('-')[0]}")
        running: dict[Future[Line], Any] = {}
        postponed: list[Any] = []
        try:
            with Journal(self.path) as journal:

                def collect(keep: int, most: int = MOST_POSTPONED) -> None:
                    nonlocal looked, counted
                    while len(running) > keep:
                        for future in wait(running, return_when=FIRST_COMPLETED).done:
                            task, line = running.pop(future), future.result()
                            if line["unreadable"] and len(postponed) < most:
                                postponed.append(task)
                                continue
                            journal.write(line)
                            looked += 1
                            counted += count(line)
                        seconds = max(time.monotonic() - begun, 1e-3)
                        self.job.progress(before + looked, max(total, before + looked), said(counted, seconds))

                for task in tasks:
                    if int(task.id) not in done:
                        collect(self._in_flight - 1)
                        running[pool.submit(work, task)] = task
                collect(0)
                again, postponed = postponed, []
                for task in again:  # Label Studio may have been away for a moment
                    collect(self._in_flight - 1, 0)
                    running[pool.submit(work, task)] = task
                collect(0, 0)
        finally:
            self.stopped.set()
            pool.shutdown(cancel_futures=True)


class Patient:
    """An engine that is waited for while it is away or busy: it is started again by itself."""

    def __init__(self, engine: AnswersAsks, patience_seconds: float, stopped: threading.Event) -> None:
        self._engine = engine
        self._patience_seconds = patience_seconds
        self._stopped = stopped

    def answer(self, ask: Ask) -> Answer:
        """Answer prompts.

        Raises:
            EngineError: it is away for too long, or cannot answer.
        """
        return self.patiently(lambda: self._engine.answer(ask))

    def patiently(self, call: Callable[[], Result]) -> Result:
        """What a call comes to; the patience begins when it fails first, since an answer may take minutes itself."""
        until: float | None = None
        while True:
            try:
                return call()
            except (EngineAway, Busy):
                now = time.monotonic()
                until = until or now + self._patience_seconds
                if now >= until or self._stopped.wait(RETRY_SECONDS):
                    raise


def push_found(
    settings: Settings,
    project: int,
    version: str,
    job: Job,
    path: Path,
    offer_of: Callable[[Mapping[str, Any]], dict[str, Any] | None],
) -> Pushed:
    """Push what a journal's lines offer as predictions of one version, each task's once.

    Args:
        settings: where Label Studio is.
        project: its number.
        version: ``model_version`` of the predictions.
        job: is told how far it is, and asked before each change.
        path: of the journal.
        offer_of: the prediction in a line; None where it has none.

    Raises:
        TatorError: Label Studio refuses, or does not answer.
        JobCancelled, JobLost: the job is to stop.
    """
    places = {int(line["task"]): offset for offset, line in lines_of(path) if offer_of(line) is not None}
    if not places:
        return Pushed(0, 0, ())

    def prediction_of(task: int) -> dict[str, Any]:
        return offer_of(line_at(path, places[task])) or {}

    def before(done: int) -> None:
        job.progress(done, len(places), "pushing predictions")
        job.check()

    job.check()
    return PredictionsOfVersion(settings, project, version).push(list(places), prediction_of, before)
