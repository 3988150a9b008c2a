"""What projects are called: asked of Label Studio now and then, in the background, and never waited for long."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from tator_ml.web.dashboard.recent import Recent
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings
from tator_sdk.studio import open_studio, sentences

log = logging.getLogger(__name__)

FRESH_SECONDS = 60.0
PATIENCE_SECONDS = 0.1
"""How long a page waits for the very first answer; later ones are shown what was known last."""


class Titles:
    """Titles by the project's number, as the backend's own token sees them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._last: Mapping[int, str] = {}
        self._recent = Recent(self._ask, FRESH_SECONDS)

    def named(self, project: int | None) -> str:
        """``Cars of mine (3)``; its number alone where Label Studio has not said, or does not answer."""
        if project is None:
            return "no project"
        title = self.all().get(project)
        return f"{title} ({project})" if title else f"project {project}"

    def all(self) -> Mapping[int, str]:
        """What is known now."""
        return self._recent.get("all", PATIENCE_SECONDS) or {}

    def _ask(self, _: str) -> Mapping[int, str]:
        try:
            studio: Any = open_studio(self._settings)
            with sentences(self._settings.label_studio_url):
                found = studio.projects.list(include="id,title", page_size=500)
                self._last = {int(one.id or 0): str(one.title or "") for one in found}
        except TatorError as error:
            log.info("titles of projects: %s", error)
        return self._last
