"""What projects are called, asked of Label Studio now and then."""

from __future__ import annotations

import logging
import threading
import time

import httpx

from tator_ml.web.access import Visitor
from tator_sdk.auth import LabelStudioAuth
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

log = logging.getLogger(__name__)

FRESH_SECONDS = 5.0
AWAY_SECONDS = 60.0
"""After a failure nobody is kept waiting for this long."""
ASK_SECONDS = 2.0
MOST = 1000


class Titles:
    """Numbers and titles of the projects that the backend's token sees; the last known where nobody answers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._fresh_until = float("-inf")
        self._known: dict[int, str] = {}

    def seen_by(self, who: Visitor) -> list[tuple[int, str]]:
        """Projects that a visitor may see, each with its number and title for people, in order."""
        known = dict.fromkeys(who.projects or (), "")
        known |= {number: title for number, title in self._all().items() if who.may_see(number)}
        return [(number, f"{number} · {title}" if title else str(number)) for number, title in sorted(known.items())]

    def name_of(self, project: int | None) -> str:
        """A project for people."""
        if project is None:
            return ""
        title = self._all().get(project, "")
        return f"{project} · {title}" if title else str(project)

    def _all(self) -> dict[int, str]:
        with self._lock:
            if time.monotonic() > self._fresh_until:
                self._fresh_until = time.monotonic() + FRESH_SECONDS
                try:
                    self._known = self._ask()
                except (TatorError, httpx.HTTPError, ValueError, KeyError) as error:
                    self._fresh_until = time.monotonic() + AWAY_SECONDS
                    log.warning("titles of projects are not known: %s", error)
            return self._known

    def _ask(self) -> dict[int, str]:
        key, url = self._settings.label_studio_api_key, self._settings.label_studio_url
        if key is None:
            return {}
        with httpx.Client(auth=LabelStudioAuth(url, key.get_secret_value()), timeout=ASK_SECONDS) as client:
            answer = client.get(f"{url}/api/projects", params={"page_size": MOST, "include": "id,title"})
            answer.raise_for_status()
            return {int(one["id"]): str(one.get("title") or "") for one in answer.json()["results"]}
