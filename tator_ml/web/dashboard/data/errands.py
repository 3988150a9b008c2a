"""Looks at data sets in processes of their own, so that reading thousands of pictures holds up no click."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time

from tator_sdk.settings import Settings

log = logging.getLogger(__name__)

AT_ONCE = 2
MOST_SECONDS = 6 * 3600
FAILED_SECONDS = 300.0
"""For so long a look that failed is not worth another try, unless somebody asks for it."""

What = tuple[str, ...]
"""The kind of a look, and what is looked at: the first two words of an errand."""


class Errands:
    """Runs ``python -m tator_sdk.looking``, one errand at a time for each thing that is looked at."""

    def __init__(self, settings: Settings) -> None:
        self._environment = settings.environment()
        self._lock = threading.Lock()
        self._wanted: dict[What, tuple[str, ...]] = {}  # words of the last errand that was asked for, until it is run
        self._failed: dict[What, float] = {}
        self._places = threading.Semaphore(AT_ONCE)

    def send(self, *words: str) -> None:
        """Have a look taken; at once, or when another one has ended.

        The same look that goes on is enough; another one at the same thing follows it, as both write to one folder.
        """
        what = words[:2]
        with self._lock:
            goes_on = what in self._wanted
            self._wanted[what] = words
            if goes_on:
                return
        threading.Thread(target=self._run, args=(what,), name=f"tator-errand-{words[0]}", daemon=True).start()

    def runs(self, *words: str) -> bool:
        """Whether a look is being taken, or waits."""
        with self._lock:
            return self._wanted.get(words[:2]) == words

    def failed(self, *words: str) -> bool:
        """Whether the last look at this failed, a moment ago."""
        with self._lock:
            return time.monotonic() - self._failed.get(words[:2], float("-inf")) < FAILED_SECONDS

    def _run(self, what: What) -> None:
        with self._places:
            done: tuple[str, ...] = ()
            while (words := self._next(what, done)) is not None:
                succeeded = self._take(words)
                with self._lock:
                    self._failed.pop(what, None)
                    if not succeeded:
                        self._failed[what] = time.monotonic()
                done = words

    def _next(self, what: What, done: tuple[str, ...]) -> tuple[str, ...] | None:
        """The errand that is still to be run; None where the last one was what is wanted."""
        with self._lock:
            if self._wanted[what] == done:
                del self._wanted[what]
                return None
            return self._wanted[what]

    def _take(self, words: tuple[str, ...]) -> bool:
        name = " ".join(words)
        try:
            command = [sys.executable, "-m", "tator_sdk.looking", *words]
            done = subprocess.run(
                command, env={**os.environ, **self._environment}, timeout=MOST_SECONDS, capture_output=True,
                text=True, check=False,
            )  # fmt: skip
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            log.error("look '%s' failed: %s", name, error)
            return False
        if done.returncode:
            log.error("look '%s' failed: %s", name, done.stderr[-2000:])
        return not done.returncode
