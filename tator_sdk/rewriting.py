"""Submitted annotations, read and rewritten one by one, without a person's unsaved work being lost to it.

Label Studio (1.23.2) deletes every draft of an annotation that is updated, whoever's it is. So whoever rewrites one
first reads it, leaves it where it is not what they know, and leaves it where somebody has a draft of it.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import httpx

from tator_sdk.auth import LabelStudioAuth
from tator_sdk.downloads import trusted
from tator_sdk.settings import Settings
from tator_sdk.studio import open_studio, sentences
from tator_sdk.untouched import drafted


class Annotations:
    """Annotations of a Label Studio."""

    def __init__(self, settings: Settings) -> None:
        self._studio: Any = open_studio(settings)
        self._url = settings.label_studio_url
        key = settings.label_studio_api_key
        self._client = httpx.Client(
            auth=LabelStudioAuth(self._url, key.get_secret_value()) if key else None, timeout=60, verify=trusted()
        )

    def __enter__(self) -> Annotations:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def read(self, number: int) -> list[Any] | None:
        """Its results as they stand now; None where it is gone.

        Raises:
            StudioError: Label Studio does not answer.
        """
        from label_studio_sdk.core.api_error import ApiError

        with sentences(self._url):
            try:
                return list(self._studio.annotations.get(id=number).result or [])
            except ApiError as error:
                if error.status_code == 404:
                    return None
                raise

    def drafted(self, task: int) -> set[int]:
        """Those of a task's annotations that somebody, whoever it is, has unsaved changes on.

        The Data Manager's tasks tell the drafts of the token's owner alone.

        Raises:
            StudioError: Label Studio does not answer.
        """
        with sentences(self._url):
            answer = self._client.get(f"{self._url}/api/tasks/{task}/drafts")
            answer.raise_for_status()
            return drafted(answer.json())

    def write(self, number: int, result: list[Any]) -> None:
        """Replace its results and nothing else: who completed it and how long that took stays.

        Raises:
            StudioError: Label Studio refuses, or does not answer.
        """
        with sentences(self._url):
            self._studio.annotations.update(id=number, result=result)
