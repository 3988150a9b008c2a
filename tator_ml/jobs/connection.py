"""The Redis that jobs go through, and the queues on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from rq import Queue
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker

from tator_ml.jobs.device import QUEUE
from tator_ml.jobs.records import JobError
from tator_ml.redis_server import redis_url
from tator_sdk.settings import Settings


def connect_redis(settings: Settings) -> redis.Redis:
    """A connection to the Redis in use."""
    return redis.Redis.from_url(redis_url(settings))


def connect_patiently(settings: Settings) -> redis.Redis:
    """A connection that tries again for about half a minute, for work that a restart of Redis must not end."""
    return redis.Redis.from_url(redis_url(settings), retry=Retry(ExponentialBackoff(cap=5, base=0.1), 11))


@contextlib.contextmanager
def reached(settings: Settings) -> Iterator[redis.Redis]:
    """A connection for one piece of work.

    Raises:
        JobError: Redis does not answer.
    """
    try:
        with connect_redis(settings) as connection:
            yield connection
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise JobError("Redis does not answer, so jobs cannot be reached; run `tator up`.") from error


def job_queue(connection: redis.Redis, name: str = QUEUE) -> Queue:
    """A queue that jobs go to.

    Args:
        connection: to Redis.
        name: as :func:`tator_ml.jobs.device.queue_name` says.
    """
    return Queue(name, connection=connection, serializer=JSONSerializer)


def living_workers(connection: redis.Redis) -> int:
    """How many workers are alive; RQ's own count holds those that were killed, until it cleans up."""
    return sum(bool(connection.exists(key)) for key in BaseWorker.all_keys(connection=connection))
