"""A Redis without room: it answers, and takes no write until it has memory or disk again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

import redis
from redis.retry import Retry

log = logging.getLogger(__name__)
T = TypeVar("T")

PAUSE_SECONDS = 1.0
TOLD_EVERY = 60
SIGNS = ("command not allowed when used memory", "MISCONF")
"""In Redis' own words: ``maxmemory`` with ``noeviction``, also from inside of a script; a snapshot or append-only file
that it could not write."""


def has_no_room(error: Exception) -> bool:
    """Whether Redis refused a write for want of memory or disk."""
    return isinstance(error, redis.OutOfMemoryError) or any(sign in str(error) for sign in SIGNS)


class UntilThereIsRoom(Retry):
    """Retries as usual, and waits as long as Redis has no room: a refused write was not done, nor a part of it."""

    def call_with_retry(
        self,
        do: Callable[[], T],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        """See :class:`redis.retry.Retry`.

        A transaction that watches keys is begun anew by its owner, as ``fail`` sees to: its watches are gone.
        """
        waits = 0
        while True:
            try:
                return super().call_with_retry(do, fail, is_retryable, with_failure_count)
            except redis.ResponseError as error:
                if not has_no_room(error):
                    raise
                if waits % TOLD_EVERY == 0:
                    log.warning("Redis takes no writes, so this waits until it does: %s", error)
                waits += 1
                time.sleep(PAUSE_SECONDS)
                fail(error, waits) if with_failure_count else fail(error)
