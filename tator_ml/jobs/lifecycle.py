"""The steps of a job, from queued to its end: each is one transaction on its record, its unique name and the queue.

A job's *attempt* counts how often it was begun; it is the fencing token, which an older attempt no longer has.
Its *delivery* counts how often it was put in the queue; RQ's job for it is named after both, so that a message
that was overtaken is recognised and does nothing.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar, cast

import redis
from redis.client import Pipeline

from tator_ml.jobs.connection import job_queue
from tator_ml.jobs.device import QUEUE
from tator_ml.jobs.order import Ending, Fields, Order, message_of, parse_message
from tator_ml.jobs.owner import Owner
from tator_ml.jobs.records import (
    ENDED,
    INDEX,
    MOST_LOG_LINES,
    OPEN,
    OPEN_STATUSES,
    JobRecord,
    JobRecords,
    Status,
    as_text,
    id_stem,
    log_key,
    no_such_job,
    points_key,
    record_key,
    unique_key,
)

MOST_LOST = 3
"""A job whose process dies this often is given up."""
KEPT_ENDED = 500
RESULT_SECONDS = 600
FAILURE_SECONDS = 86400

Value = TypeVar("Value")


def read_fields(connection: redis.Redis, job_id: str) -> Fields:
    """Everything that is kept of a job.

    Raises:
        JobError: there is none of this id.
    """
    fields = as_text(cast(dict[bytes, bytes], connection.hgetall(record_key(job_id))))
    if "id" not in fields:
        raise no_such_job(job_id)
    return fields


def place(connection: redis.Redis, order: Order) -> JobRecord:
    """Put a new job in the queue, or follow the rule of its unique name.

    Returns:
        The new job, or the one of that name that waits, or the one that runs and will be followed by this order.
    """

    def step(pipe: Pipeline) -> str:
        if order.unique is not None:
            _watch(pipe, unique_key(order.unique))
            current = cast(bytes | None, pipe.hget(unique_key(order.unique), "job"))
            if current is not None:
                fields = _watched(pipe, current.decode())
                # a job that was begun once may have read its data already, though it waits again after a crash
                if fields.get("status") == "queued" and fields["attempt"] == "0":
                    return fields["id"]
                if fields.get("status") in OPEN_STATUSES:
                    pipe.multi()
                    pipe.hset(unique_key(order.unique), "again", json.dumps(asdict(order)))
                    return fields["id"]
        job_id = _fresh_id(pipe, order)
        pipe.multi()
        _create(pipe, connection, job_id, order)
        return job_id

    return JobRecords(connection).get(_transact(connection, step))


def claim(connection: redis.Redis, message: str, owner: Owner) -> None:
    """Say who took a delivery from the queue, before its process is there: no time is left without an owner."""
    job_id, delivery = parse_message(message)

    def step(pipe: Pipeline) -> None:
        fields = _watched(pipe, job_id)
        if fields.get("status") == "queued" and fields["delivery"] == delivery:
            pipe.multi()
            pipe.hset(record_key(job_id), mapping={"owner": owner.to_json(), "host": owner.host})

    if job_id:
        _transact(connection, step)


def begin(connection: redis.Redis, job_id: str, owner: Owner, message: str | None = None) -> int | None:
    """Mark a job as running.

    Args:
        connection: to Redis.
        job_id: of the job.
        owner: the process that runs it.
        message: RQ job that brought it here; None where none did.

    Returns:
        The attempt, which is the fencing token; None where the job is not to be run: it runs elsewhere or has ended.
    """

    def step(pipe: Pipeline) -> int | None:
        fields = _watched(pipe, job_id)
        overtaken = message is not None and message != message_of(job_id, fields.get("delivery", ""))
        if fields.get("status") != "queued" or overtaken:
            return None
        attempt = int(fields["attempt"]) + 1
        begun: dict[str, str | float] = {"status": "running", "attempt": attempt, "owner": owner.to_json()}
        begun |= {"host": owner.host, "started": fields.get("started") or time.time()}
        pipe.multi()
        pipe.hset(record_key(job_id), mapping=cast(Any, begun))
        return attempt

    return _transact(connection, step)


def finish(connection: redis.Redis, job_id: str, attempt: int, ending: Ending) -> bool:
    """End a job that this attempt runs, and start what waits for its unique name.

    Returns:
        False where the attempt has lost the job: nothing was changed.
    """

    def step(pipe: Pipeline) -> bool:
        fields = _watched(pipe, job_id)
        if fields.get("attempt") != str(attempt):
            return False
        if fields["status"] == ending.status:  # a retry of this very call after a lost connection
            return True
        if fields["status"] != "running":
            return False
        _end(pipe, connection, fields, ending)
        return True

    ended = _transact(connection, step)
    trim(connection)
    return ended


def recover(
    connection: redis.Redis, job_id: str, delivery: str, why: str, *, counted: bool = True, failure: str | None = None
) -> Status | None:
    """Deal with a job whose process is gone: put it back in the queue, or end it.

    Args:
        connection: to Redis.
        job_id: of the job.
        delivery: the one that was lost; where the job has a newer one, nothing is done.
        why: a line for its log.
        counted: whether it counts towards :data:`MOST_LOST`.
        failure: the sentence to fail with at once, instead of another attempt.

    Returns:
        The job's new status; None where nothing was done.
    """

    def step(pipe: Pipeline) -> Status | None:
        fields = _watched(pipe, job_id)
        if fields.get("status") not in OPEN_STATUSES or fields["delivery"] != delivery:
            return None
        lost = int(fields.get("lost", 0)) + counted
        if fields.get("cancel"):
            ending = Ending("cancelled")
        elif failure is not None:
            ending = Ending("failed", error=failure)
        elif lost >= MOST_LOST:
            sentence = (
                f"Its process died {lost} times, perhaps for want of memory; `tator jobs log {job_id}` says more."
            )
            ending = Ending("failed", error=sentence)
        else:
            pipe.multi()
            again = int(delivery) + 1
            changes = {"status": "queued", "delivery": again, "lost": lost, "owner": "", "what": "waiting to go on"}
            pipe.hset(record_key(job_id), mapping=cast(Any, changes))
            _deliver(pipe, connection, job_id, Order.of(fields), again, at_front=True)
            _note(pipe, job_id, why)
            return "queued"
        _end(pipe, connection, fields, ending)
        _note(pipe, job_id, why)
        return ending.status

    status = _transact(connection, step)
    if status is not None:
        logging.getLogger(__name__).warning("job %s: %s; now %s", job_id, why, status)
        trim(connection)
    return status


def ask_to_cancel(connection: redis.Redis, job_id: str) -> None:
    """Take a queued job out of the queue; have a running one stop at its next check.

    What was to follow it under its unique name is dropped, once: what is asked for after this runs.

    Raises:
        JobError: there is none of this id.
    """

    def step(pipe: Pipeline) -> None:
        fields = _watched(pipe, job_id)
        if not fields:
            raise no_such_job(job_id)
        name = fields["unique"]
        if fields["status"] == "queued":
            _end(pipe, connection, fields, Ending("cancelled"), followed=False)
            queue = job_queue(connection, Order.of(fields).queue)
            queue.remove(message_of(job_id, fields["delivery"]), pipeline=pipe)
        elif fields["status"] == "running":
            pipe.multi()
            pipe.hset(record_key(job_id), "cancel", str(time.time()))
            if name:
                pipe.hdel(unique_key(name), "again")

    _transact(connection, step)
    trim(connection)


def trim(connection: redis.Redis, keep: int = KEPT_ENDED) -> None:
    """Forget all but the newest ended jobs."""
    for raw in cast(list[bytes], connection.zrange(ENDED, 0, -(keep + 1))):
        job_id = raw.decode()
        pipe = connection.pipeline()
        pipe.delete(record_key(job_id), log_key(job_id), points_key(job_id))
        pipe.zrem(INDEX, job_id)
        pipe.zrem(ENDED, job_id)
        pipe.execute()


def note(connection: redis.Redis, job_id: str, lines: str) -> None:
    """Add to a job's log from outside, whoever runs it."""
    pipe = connection.pipeline()
    _note(pipe, job_id, lines)
    pipe.execute()


def _transact(connection: redis.Redis, step: Callable[[Pipeline], Value]) -> Value:
    """Run a step that watches, reads and then queues its changes, again until nobody came between."""
    return cast(Value, connection.transaction(cast(Any, step), value_from_callable=True))


def _watch(pipe: Pipeline, key: str) -> None:
    cast(Any, pipe).watch(key)  # its type is missing


def _watched(pipe: Pipeline, job_id: str) -> Fields:
    _watch(pipe, record_key(job_id))
    return as_text(cast(dict[bytes, bytes], pipe.hgetall(record_key(job_id))))


def _fresh_id(pipe: Pipeline, order: Order) -> str:
    while True:
        job_id = id_stem(order.kind, order.project) + secrets.token_hex(2)
        _watch(pipe, record_key(job_id))
        if not pipe.exists(record_key(job_id)):
            return job_id


def _create(pipe: Pipeline, connection: redis.Redis, job_id: str, order: Order) -> None:
    now = time.time()
    fields: dict[str, Any] = {
        **{name: "" if value is None else value for name, value in asdict(order).items()},
        "request": json.dumps(order.request),
        "id": job_id,
        "status": "queued",
        "created": now,
        "attempt": 0,
        "delivery": 1,
    }
    if order.queue != QUEUE:
        fields["what"] = f"waiting for a worker of {order.device}"
    pipe.hset(record_key(job_id), mapping=cast(Any, fields))
    pipe.zadd(INDEX, {job_id: now})
    pipe.sadd(OPEN, job_id)
    if order.unique is not None:
        pipe.delete(unique_key(order.unique))
        pipe.hset(unique_key(order.unique), "job", job_id)
    _deliver(pipe, connection, job_id, order, 1)


def _deliver(
    pipe: Pipeline, connection: redis.Redis, job_id: str, order: Order, delivery: int, *, at_front: bool = False
) -> None:
    # how the job itself ended is in its record; RQ's job is only the message, and may go soon
    job_queue(connection, order.queue).enqueue_call(
        order.function,
        args=(job_id, order.request),
        timeout=order.timeout_seconds,
        result_ttl=RESULT_SECONDS,
        failure_ttl=FAILURE_SECONDS,
        description=f"{job_id}: {order.title}",
        job_id=message_of(job_id, delivery),
        at_front=at_front,
        pipeline=pipe,
    )


def _end(pipe: Pipeline, connection: redis.Redis, fields: Fields, ending: Ending, *, followed: bool = True) -> None:
    """Read what follows, then queue the commands that end the job and start it."""
    job_id, name, now = fields["id"], fields["unique"], time.time()
    follower: Order | None = None
    if name:
        _watch(pipe, unique_key(name))
        current, again = cast(list[bytes | None], pipe.hmget(unique_key(name), ["job", "again"]))
        named = current is not None and current.decode() == job_id
        if named and again is not None and followed:
            follower = Order(**json.loads(again))
    follower_id = _fresh_id(pipe, follower) if follower is not None else ""
    pipe.multi()
    changes: dict[str, str | float] = {"status": ending.status, "ended": now, "error": ending.error or ""}
    changes["result"] = "" if ending.result is None else json.dumps(ending.result)
    pipe.hset(record_key(job_id), mapping=cast(Any, changes))
    pipe.srem(OPEN, job_id)
    pipe.zadd(ENDED, {job_id: now})
    if name and named:
        pipe.delete(unique_key(name))
    if follower is not None:
        _create(pipe, connection, follower_id, follower)


def _note(pipe: Pipeline, job_id: str, lines: str) -> None:
    parts = lines.splitlines() or [""]
    pipe.rpush(log_key(job_id), *parts)
    pipe.ltrim(log_key(job_id), -MOST_LOG_LINES, -1)
    pipe.hincrby(record_key(job_id), "log_end", len(parts))
