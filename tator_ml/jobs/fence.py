"""Writes that only the current attempt of a job can make, each atomic on the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, cast

import redis

from tator_ml.jobs.records import MOST_LOG_LINES, MOST_POINTS, log_key, points_key, record_key

_CHECK = """
local now = redis.call('HMGET', KEYS[1], 'status', 'attempt', 'cancel')
if now[1] ~= 'running' or now[2] ~= ARGV[1] then return 0 end
"""
_VERDICT = "if now[3] then return 2 end return 1"
_SET = _CHECK + "if #ARGV > 1 then redis.call('HSET', KEYS[1], unpack(ARGV, 2)) end " + _VERDICT
_APPEND = (
    _CHECK
    + """
redis.call('RPUSH', KEYS[2], unpack(ARGV, 4))
redis.call('LTRIM', KEYS[2], -tonumber(ARGV[2]), -1)
redis.call('HINCRBY', KEYS[1], ARGV[3], #ARGV - 3)
"""
    + _VERDICT
)
_BEAT = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HINCRBY', KEYS[1], 'beat', 1)
return redis.call('HEXISTS', KEYS[1], 'cancel')
"""


class Standing(IntEnum):
    """What an attempt learns at each write."""

    LOST = 0
    GOOD = 1
    CANCELLED = 2


class Fence:
    """The writes of one attempt; once another has begun, each says LOST and changes nothing."""

    def __init__(self, connection: redis.Redis, job_id: str, attempt: int) -> None:
        self._connection = connection
        self._id = job_id
        self._attempt = str(attempt)

    def set(self, fields: Mapping[str, str | int]) -> Standing:
        """Change fields of the record; none of them is a check alone."""
        flat = [str(part) for pair in fields.items() for part in pair]
        return self._run(_SET, [record_key(self._id)], flat)

    def log(self, lines: Sequence[str]) -> Standing:
        """Add to its log."""
        return self._append(log_key(self._id), MOST_LOG_LINES, "log_end", lines)

    def points(self, points: Sequence[str]) -> Standing:
        """Add to its curve, as JSON."""
        return self._append(points_key(self._id), MOST_POINTS, "points_end", points)

    def _append(self, key: str, most: int, counter: str, parts: Sequence[str]) -> Standing:
        return self._run(_APPEND, [record_key(self._id), key], [str(most), counter, *parts])

    def _run(self, script: str, keys: list[str], arguments: list[str]) -> Standing:
        verdict = cast(Any, self._connection.register_script(script)(keys=keys, args=[self._attempt, *arguments]))
        return Standing(int(verdict))


def beat(connection: redis.Redis, job_id: str) -> bool:
    """Show other hosts that a job's worker lives.

    Returns:
        Whether the job is asked to stop.
    """
    return bool(connection.register_script(_BEAT)(keys=[record_key(job_id)]))
