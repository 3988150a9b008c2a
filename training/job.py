"""A job's own side: progress, log, curve, checkpoints, and how it learns that it should stop."""

from __future__ import annotations

import json
import logging
import math
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import redis
from pydantic import ValidationError
from rq import get_current_job
from rq.timeouts import JobTimeoutException

from tator_ml.jobs import lifecycle
from tator_ml.jobs.connection import connect_patiently
from tator_ml.jobs.fence import Fence, Standing
from tator_ml.jobs.order import Ending, timeout_sentence
from tator_ml.jobs.owner import Owner
from tator_ml.running.lease import Bystander
from tator_sdk.disk import disk_is_full
from tator_sdk.errors import TatorError
from tator_sdk.plain_text import on_one_line
from tator_sdk.settings import Settings

WRITE_SECONDS = 0.2
MOST_LINE_CHARACTERS = 4000
FULL_DISK = "The disk of its machine is full; make room, then `tator jobs retry {id}` starts it again."

Progress = Callable[[int, int, str], None]
"""Takes steps done, steps in all and the current step in words."""


# Neither is a TatorError: who skips a broken picture with ``except TatorError`` must not swallow them.
class JobCancelled(Exception):
    """A person asked the job to stop."""


class JobLost(Exception):
    """Another attempt has the job: this one must not touch anything any more."""


class Job(Protocol):
    """What a job function works with.

    Before each effect on the outside (a push to Label Studio, a model's activation) it calls :meth:`check`.

    Attributes:
        id: of the job.
        folder: for checkpoints; a later attempt of the same job finds it again.
    """

    id: str
    folder: Path

    def progress(self, done: int, total: int, what: str) -> None:
        """Tell how far the job is; cheap enough for every step, and waits while clicks are answered on this host.

        Args:
            done: steps done.
            total: steps in all; 0 while unknown.
            what: the current step in words.

        Raises:
            JobCancelled: a person asked it to stop.
            JobLost: another attempt has it.
        """

    def check(self) -> None:
        """Ask whether to go on.

        Raises:
            JobCancelled: a person asked it to stop.
            JobLost: another attempt has it.
        """

    def log(self, line: str) -> None:
        """Add to the job's log.

        Raises:
            JobLost: another attempt has it.
        """

    def point(self, **values: float | int | str) -> None:
        """Add a point to the job's curve, e.g. ``point(step=10, loss=0.3)``.

        Raises:
            JobLost: another attempt has it.
        """


class QueuedJob:
    """A job that a worker runs; what it tells goes to its record in Redis."""

    def __init__(
        self, connection: redis.Redis, job_id: str, attempt: int, folder: Path, clicks: Bystander | None = None
    ) -> None:
        """Prepare.

        Args:
            connection: to Redis.
            job_id: of the job.
            attempt: which of its attempts this is.
            folder: see :class:`Job`.
            clicks: that it stands aside for; None for none.
        """
        self.id = job_id
        self.folder = folder
        self._clicks = clicks
        self._fence = Fence(connection, job_id, attempt)
        self._written = self._named = -math.inf
        self._what = ""
        self._unwritten: dict[str, str | int] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def progress(self, done: int, total: int, what: str) -> None:
        """See :meth:`Job.progress`; written at most five times a second."""
        if self._clicks is not None:
            self._clicks.stand_aside()
        now = time.monotonic()
        self._unwritten = {"done": done, "total": total, "what": what}
        # a new step after many quick ones is told at once, as it may be a long one
        renamed = what != self._what and now - self._named >= WRITE_SECONDS
        if renamed or now - self._written >= WRITE_SECONDS:
            if what != self._what:
                self._what, self._named = what, now
            self._written = now
            self.check()

    def check(self) -> None:
        """See :meth:`Job.check`; asks Redis each time, and writes the progress that was held back."""
        standing = self._fence.set(self._unwritten)
        self._unwritten = {}
        if standing is Standing.CANCELLED:
            raise JobCancelled
        self._unless_lost(standing)

    def log(self, line: str) -> None:
        """See :meth:`Job.log`; also to the process's own log."""
        parts = [on_one_line(part[:MOST_LINE_CHARACTERS]) for part in line.splitlines()] or [""]
        for part in parts:
            logging.getLogger(__name__).info("%s: %s", self.id, part)
        for begin in range(0, len(parts), 1000):
            self._unless_lost(self._fence.log(parts[begin : begin + 1000]))

    def point(self, **values: float | int | str) -> None:
        """See :meth:`Job.point`; numbers that are none become null."""
        self._unless_lost(self._fence.points([json.dumps(_plain(values))]))

    def flush(self) -> None:
        """Write the progress that was held back, asked to stop or not.

        Raises:
            JobLost: another attempt has the job.
        """
        self._unless_lost(self._fence.set(self._unwritten))
        self._unwritten = {}

    def _unless_lost(self, standing: Standing) -> None:
        if standing is Standing.LOST:
            raise JobLost


class LocalJob:
    """A job that runs in the foreground, without Redis: never cancelled, never lost.

    Attributes:
        points: of its curve.
    """

    def __init__(self, settings: Settings, job_id: str, on_progress: Progress | None = None) -> None:
        self.id = job_id
        self.folder = settings.home / "jobs" / job_id
        self.points: list[dict[str, Any]] = []
        self._on_progress = on_progress
        self._clicks = bystander(settings)
        self.folder.mkdir(parents=True, exist_ok=True)

    def progress(self, done: int, total: int, what: str) -> None:
        """Hand the progress on."""
        if self._clicks is not None:
            self._clicks.stand_aside()
        if self._on_progress is not None:
            self._on_progress(done, total, what)

    def check(self) -> None:
        """Go on; Ctrl-C ends it."""

    def log(self, line: str) -> None:
        """Log it."""
        logging.getLogger(__name__).info("%s: %s", self.id, line)

    def point(self, **values: float | int | str) -> None:
        """Keep it."""
        self.points.append(_plain(values))


def bystander(settings: Settings) -> Bystander | None:
    """What lets a job stand aside for clicks, where the settings ask for it."""
    return Bystander(settings.home / "run") if settings.yield_to_clicks else None


def run_job(job_id: str, work: Callable[[Job, Settings], dict[str, Any]]) -> dict[str, Any]:
    """Run a job that a worker took, and write down how it ended.

    What a kind's function consists of::

        def run(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
            return run_job(job_id, lambda job, settings: train(job, settings, Request.model_validate(request)))

    Nothing is raised: a :class:`TatorError` fails the job with its sentence, anything else with a general one and
    its traceback in the job's log. A process that dies is another matter: the worker starts a further attempt.

    Args:
        job_id: of the job.
        work: does it, and returns a result that JSON can hold.

    Returns:
        The result; empty where the job did not come to one.
    """
    settings = Settings()
    connection = connect_patiently(settings)
    message = get_current_job()
    attempt = lifecycle.begin(connection, job_id, Owner.current(), message.id if message else None)
    if attempt is None:
        logging.getLogger(__name__).info("%s runs elsewhere or has ended: nothing to do", job_id)
        return {}
    result: dict[str, Any] = {}
    folder = settings.home / "jobs" / job_id
    if attempt == 1:
        _put_aside(folder)
    job = QueuedJob(connection, job_id, attempt, folder, bystander(settings))
    try:
        if attempt > 1:
            job.log(f"attempt {attempt} begins")
        ending, result = _ending_of(job, work, settings, lifecycle.read_fields(connection, job_id))
        job.flush()
        if not lifecycle.finish(connection, job_id, attempt, ending):
            raise JobLost
    except JobLost:
        logging.getLogger(__name__).warning("%s was lost to another attempt: this one ends here", job_id)
        return {}
    logging.getLogger(__name__).info("%s %s %s", job_id, ending.status, ending.error or "")
    return result


def _put_aside(folder: Path) -> None:
    """Rename what an earlier job left: ids are short and folders outlive records, so one may be given out again."""
    if folder.is_dir() and any(folder.iterdir()):
        folder.rename(folder.with_name(f"{folder.name}.before-{time.time_ns()}"))


def _ending_of(
    job: QueuedJob, work: Callable[[Job, Settings], dict[str, Any]], settings: Settings, fields: dict[str, str]
) -> tuple[Ending, dict[str, Any]]:
    """Do the work.

    Raises:
        JobLost: another attempt has the job.
    """
    try:
        result = json.loads(json.dumps(work(job, settings)))
        return Ending("done", result=result), result
    except JobLost:
        raise
    except JobCancelled:
        return Ending("cancelled"), {}
    except JobTimeoutException:
        return Ending("failed", error=timeout_sentence(int(fields["timeout_seconds"]))), {}
    except TatorError as error:
        return Ending("failed", error=str(error)), {}
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        return Ending("failed", error=f"Its request cannot be used: {where}: {first['msg']}."), {}
    except Exception as error:
        job.log(traceback.format_exc())
        if disk_is_full(error):
            return Ending("failed", error=FULL_DISK.format(id=job.id)), {}
        return Ending("failed", error=f"An unexpected error ended it; `tator jobs log {job.id}` says more."), {}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Values that JSON can hold; those of numpy and torch become floats, infinities and NaN null."""

    def plain(value: Any) -> Any:
        if not isinstance(value, (int, str)):
            value = float(value)
            return value if math.isfinite(value) else None
        return value

    return {name: plain(value) for name, value in values.items()}
