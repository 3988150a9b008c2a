"""The smallest job, for ``tator doctor``: does a worker answer?"""

from __future__ import annotations

import time

from rq.job import Job, JobStatus

from tator_ml.jobs.connection import connect_redis, job_queue
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings


def ping(sent_at: float) -> float:
    """Seconds it waited before a worker took it."""
    return time.time() - sent_at


def ping_worker(settings: Settings, seconds: float = 20.0) -> float:
    """Send a ping through the queue.

    Returns:
        Seconds until it was done.

    Raises:
        TatorError: no worker did it in time.
    """
    with connect_redis(settings) as connection:
        begun = time.monotonic()
        job: Job = job_queue(connection).enqueue(ping, time.time(), result_ttl=60, ttl=int(seconds) + 5)
        while time.monotonic() - begun < seconds:
            if job.get_status(refresh=True) is JobStatus.FINISHED:
                return time.monotonic() - begun
            time.sleep(0.05)
        job.cancel()
    raise TatorError(f"No worker took a job within {seconds:g} s; start one with `tator worker`.")
