"""Looks at data sets in processes of their own, so that reading thousands of pictures holds up no click."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading

from tator_sdk.settings import Settings

log = logging.getLogger(__name__)

AT_ONCE = 2
MOST_SECONDS = 6 * 3600


class Errands:
    """Runs ``python -m tator_sdk.looking``, each errand once at a time."""

    def __init__(self, settings: Settings) -> None:
        self._environment = settings.environment()
        self._lock = threading.Lock()
        self._running: set[str] = set()
        self._places = threading.Semaphore(AT_ONCE)

    def send(self, *words: str) -> None:
        """Have a look taken; at once, or when another one has ended. The same look that goes on is enough."""
        name = " ".join(words)
        with self._lock:
            if name in self._running:
                return
            self._running.add(name)
        threading.Thread(target=self._run, args=(name, words), name=f"tator-errand-{words[0]}", daemon=True).start()

    def runs(self, *words: str) -> bool:
        """Whether a look is being taken, or waits."""
        with self._lock:
            return " ".join(words) in self._running

    def _run(self, name: str, words: tuple[str, ...]) -> None:
        try:
            with self._places:
                command = [sys.executable, "-m", "tator_sdk.looking", *words]
                done = subprocess.run(
                    command, env={**os.environ, **self._environment}, timeout=MOST_SECONDS, capture_output=True,
                    text=True, check=False,
                )  # fmt: skip
                if done.returncode:
                    log.error("look '%s' failed: %s", name, done.stderr[-2000:])
        except (OSError, subprocess.SubprocessError) as error:
            log.error("look '%s' failed: %s", name, error)
        finally:
            with self._lock:
                self._running.discard(name)
