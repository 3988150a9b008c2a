"""Jobs on RQ: queues, and the worker that takes from them. Arguments are JSON, never pickles."""

from __future__ import annotations

import os
import socket
import time

import redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.worker import SpawnWorker

from tator_ml.redis_server import redis_url
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

QUEUE = "tator"


def connect_redis(settings: Settings) -> redis.Redis:
    """A connection to the Redis in use."""
    return redis.Redis.from_url(redis_url(settings))


def queue(connection: redis.Redis) -> Queue:
    """The queue that jobs go to."""
    return Queue(QUEUE, connection=connection, serializer=JSONSerializer)


def run_worker(settings: Settings) -> None:
    """Work until the process is told to stop; each job runs in a freshly spawned process.

    A spawned process rather than a forked one: CUDA does not survive a fork.
    """
    connection = connect_redis(settings)
    worker = SpawnWorker(
        [queue(connection)],
        connection=connection,
        serializer=JSONSerializer,
        name=f"tator-{socket.gethostname()}-{os.getpid()}",
        maintenance_interval=30,
    )
    worker.work(with_scheduler=False)


def ping(sent_at: float) -> float:
    """The smallest job, for `tator doctor`: seconds it waited before a worker took it."""
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
        job: Job = queue(connection).enqueue(ping, time.time(), result_ttl=60, ttl=int(seconds) + 5)
        while time.monotonic() - begun < seconds:
            if job.get_status(refresh=True) is JobStatus.FINISHED:
                return time.monotonic() - begun
            time.sleep(0.05)
        job.cancel()
    raise TatorError(f"No worker took a job within {seconds:g} s; start one with `tator worker`.")
