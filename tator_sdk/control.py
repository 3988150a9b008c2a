"""The control API of a running backend, called from a command."""

from __future__ import annotations

from typing import Any

import httpx

from tator_sdk.connect import basic_auth, check_backend
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

SECONDS = 30


class ControlApi:
    """Calls below ``/tator/api``."""

    def __init__(self, settings: Settings, address: str | None = None) -> None:
        """Look for the backend.

        Args:
            settings: with its password.
            address: of the backend; by default the settings' own.

        Raises:
            TatorError: it does not answer, or refuses the password.
        """
        address = (address or settings.backend_url).rstrip("/")
        check_backend(settings, address)
        self._client = httpx.Client(base_url=f"{address}/tator/api/", auth=basic_auth(settings), timeout=SECONDS)

    def get(self, path: str) -> Any:
        """Ask.

        Raises:
            TatorError: it was refused, with the backend's sentence.
        """
        return self._call("GET", path)

    def put(self, path: str, body: dict[str, Any]) -> Any:
        """Change.

        Raises:
            TatorError: it was refused, with the backend's sentence.
        """
        return self._call("PUT", path, json=body)

    def _call(self, method: str, path: str, **how: Any) -> Any:
        try:
            answer = self._client.request(method, path, **how)
        except httpx.HTTPError as error:
            raise TatorError("Tator does not answer any more; start it with `tator up`.") from error
        try:
            said = answer.json()
        except ValueError:
            said = {}
        if not answer.is_success:
            raise TatorError(said.get("error") or f"Tator answers {answer.status_code}.")
        return said
