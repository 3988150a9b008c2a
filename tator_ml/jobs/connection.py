"""The Redis that jobs go through, and the queues on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import redis
from redis.backoff import ExponentialBackoff
from rq import Queue
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker

from tator_ml.jobs.device import QUEUE
from tator_ml.jobs.records import JobError
from tator_ml.jobs.room import UntilThereIsRoom, has_no_room
from tator_ml.running.redis_server import redis_url
from tator_sdk.settings import Settings


class RedisAway(JobError):
    """Redis does not answer, or is full, for the moment."""


def connect_redis(settings: Settings) -> redis.Redis:
    """A connection to the Redis in use."""
    return redis.Redis.from_url(redis_url(settings))


def connect_patiently(settings: Settings) -> redis.Redis:
    """A connection for work that must not end by Redis: half a minute for its restart, any time while it is full."""
    retry = UntilThereIsRoom(ExponentialBackoff(cap=5, base=0.1), 11)
    return redis.Redis.from_url(redis_url(settings), retry=retry)


@contextlib.contextmanager
def reached(settings: Settings) -> Iterator[redis.Redis]:
    """A connection for one piece of work.

    Raises:
        RedisAway: it does not answer, or has no room for what is written.
    """
    try:
        with connect_redis(settings) as connection:
            yield connection
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise RedisAway("Redis does not answer, so jobs cannot be reached; run `tator up`.") from error
    except redis.ResponseError as error:
        if not has_no_room(error):
            raise
        raise RedisAway(
            "Redis is full, so no job can be started or stopped: give it more memory (maxmemory), or make room on its "
            "disk. Jobs that run wait for that and go on."
        ) from error


def job_queue(connection: redis.Redis, name: str = QUEUE) -> Queue:
    """A queue that jobs go to.

    Args:
        connection: to Redis.
        name: as :func:`tator_ml.jobs.device.queue_name` says.
    """
    return Queue(name, connection=connection, serializer=JSONSerializer)


def living_workers(connection: redis.Redis) -> int:
    """How many workers are alive."""
    return len(names_of_workers(connection))


def names_of_workers(connection: redis.Redis) -> frozenset[str]:
    """Workers that are alive; RQ's own list holds those that were killed, until it cleans up."""
    return frozenset(key for key in BaseWorker.all_keys(connection=connection) if connection.exists(key))
