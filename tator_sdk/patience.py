"""Trying again while Label Studio is away: a restart takes it half a minute."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from tator_sdk.studio import StudioError

log = logging.getLogger(__name__)
T = TypeVar("T")

WAITS_SECONDS = (1.0, 3.0, 10.0, 30.0)


def patiently(work: Callable[[], T], what: str) -> T:
    """Do what may be done twice, and again after `WAITS_SECONDS` where it failed for a reason that passes.

    Raises:
        StudioError: that of the last try, or one that does not pass.
    """
    for wait in WAITS_SECONDS:
        try:
            return work()
        except StudioError as error:
            if not error.passing:
                raise
            log.warning("%s: tried again in %g s: %s", what, wait, error)
            time.sleep(wait)
    return work()
