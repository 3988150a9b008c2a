"""Finds jobs that nobody works on any more, and puts them back in the queue."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import redis

from tator_ml.jobs.connection import job_queue
from tator_ml.jobs.device import queue_name
from tator_ml.jobs.lifecycle import recover
from tator_ml.jobs.order import message_of
from tator_ml.jobs.owner import Owner
from tator_ml.jobs.records import OPEN, record_key

HEARTBEAT_PATIENCE_SECONDS = 30.0
"""How long a worker of another machine may show no life."""
DELIVERY_PATIENCE_SECONDS = 15.0
"""How long a job may be neither in the queue nor anybody's; between the two are milliseconds."""


class Sweeper:
    """Looks at all open jobs every few seconds; any number of workers may do so at once.

    What runs on this machine is judged by its process. What runs elsewhere is judged by whether its heartbeat
    changes, timed by this process's own clock: clocks of two machines are never compared.
    """

    def __init__(self, connection: redis.Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._clock = clock
        self._seen: dict[str, tuple[tuple[str, ...], float]] = {}

    def sweep(self) -> list[str]:
        """Look once.

        Returns:
            Ids of the jobs that were put back in the queue or ended.
        """
        ids = [raw.decode() for raw in cast(Any, self._connection.smembers(OPEN))]
        pipe = self._connection.pipeline(transaction=False)
        for job_id in ids:
            pipe.hmget(record_key(job_id), "status", "delivery", "owner", "beat", "device")
        states = [[(part or b"").decode() for part in state] for state in pipe.execute()]
        queues = {queue_name(device) for *_, device in states}
        # read last: what was taken meanwhile has an owner soon
        waiting = {one for name in queues for one in job_queue(self._connection, name).job_ids}
        self._seen = {job_id: seen for job_id, seen in self._seen.items() if job_id in set(ids)}
        swept = []
        for job_id, (status, delivery, owner, beat, _) in zip(ids, states, strict=True):
            if not status:
                self._connection.srem(OPEN, job_id)
                continue
            if message_of(job_id, delivery) in waiting:
                continue
            why = self._lost(job_id, owner, (status, delivery, owner, beat))
            if why and recover(self._connection, job_id, delivery, why, counted=bool(owner)):
                swept.append(job_id)
        return swept

    def _lost(self, job_id: str, owner: str, state: tuple[str, ...]) -> str | None:
        seen, since = self._seen.get(job_id, ((), 0.0))
        if seen != state:
            self._seen[job_id] = state, self._clock()
            since = self._clock()
        unchanged = self._clock() - since
        if not owner:
            return "it had left the queue and nobody took it" if unchanged > DELIVERY_PATIENCE_SECONDS else None
        process = Owner.from_json(owner)
        gone = process.gone()
        if gone is None:
            gone = unchanged > HEARTBEAT_PATIENCE_SECONDS
        return f"its process on {process.host} is gone" if gone else None
