"""What projects are called: asked of Label Studio now and then, in the background, and never waited for long."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings
from tator_sdk.studio import open_studio, sentences

log = logging.getLogger(__name__)

FRESH_SECONDS = 60.0
PATIENCE_SECONDS = 0.2
"""How long a page waits for the very first answer; later ones are shown what was known last."""


class Titles:
    """Titles by the project's number, as the backend's own token sees them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._titles: Mapping[int, str] = {}
        self._asked = float("-inf")
        self._answered = threading.Event()

    def named(self, project: int | None) -> str:
        """``Cars of mine (3)``; its number alone where Label Studio has not said, or does not answer."""
        if project is None:
            return "no project"
        title = self.all().get(project)
        return f"{title} ({project})" if title else f"project {project}"

    def all(self) -> Mapping[int, str]:
        """What is known now; asks anew behind the answer where it is old."""
        with self._lock:
            due = time.monotonic() - self._asked > FRESH_SECONDS
            if due:
                self._asked = time.monotonic()
        if due:
            threading.Thread(target=self._ask, name="titles", daemon=True).start()
            self._answered.wait(PATIENCE_SECONDS)
        return self._titles

    def _ask(self) -> None:
        try:
            studio: Any = open_studio(self._settings)
            with sentences(self._settings.label_studio_url):
                found = studio.projects.list(include="id", page_size=500)
                self._titles = {int(one.id or 0): str(one.title or "") for one in found}
        except TatorError as error:
            log.info("titles of projects: %s", error)
        finally:
            self._answered.set()
