"""How a project's head is coming along, in words for the strip: Label Studio itself shows nothing of a training."""

from __future__ import annotations

import threading
import time

import redis

from tator_ml.jobs.connection import connect_redis
from tator_ml.jobs.records import JobRecord, JobRecords
from tator_sdk.settings import Settings

ASKED_EVERY_SECONDS = 1.0
SHOWN_SECONDS = 60.0  # for how long the end of a training is told


class LearningProgress:
    """The newest training of each project; Redis is asked once a second at most, however many look."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._known: dict[int, tuple[float, str | None]] = {}

    def said(self, project: int | None) -> str | None:
        """What is to be told of the project's training now; None where nothing is, or Redis does not answer."""
        if project is None:
            return None
        with self._lock:
            at, said = self._known.get(project, (0.0, None))
            now = time.monotonic()
            if now - at < ASKED_EVERY_SECONDS:
                return said
            self._known[project] = (now, said)  # whoever comes meanwhile does not ask as well
        try:
            with connect_redis(self._settings) as connection:
                newest = JobRecords(connection).newest("clip", project)
        except redis.RedisError:
            return None
        said = None if newest is None else in_words(newest)
        with self._lock:
            self._known[project] = (now, said)
        return said


def in_words(job: JobRecord) -> str | None:
    """A training in a few words; None once its end is old news."""
    if job.status == "queued":
        return "learning: waits for a worker"
    if job.status == "running":
        share = f" {100 * job.done // job.total} %" if job.total and job.done < job.total else ""
        return f"learning: {job.what}{share}"
    if job.ended is None or time.time() - job.ended > SHOWN_SECONDS:
        return None
    if job.status == "done" and job.result:
        version = job.result.get("version")
        return f"learned: {version} is active" if job.result.get("activated") else f"learned, not taken: {version}"
    return f"learning {job.status}: {job.error}" if job.error else f"learning {job.status}"
