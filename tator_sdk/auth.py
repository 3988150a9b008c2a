"""Signing in to Label Studio with either kind of token."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Generator
from urllib.parse import urlsplit

import httpx

from tator_sdk.errors import TatorError


class TokenRefused(TatorError):
    """Label Studio does not take the token; the message says what to do."""


def is_personal_access_token(token: str) -> bool:
    """Whether a token is a PAT (a refresh JWT) rather than a legacy key."""
    return token.count(".") == 2


def _expiry(jwt: str) -> float:
    """The moment a JWT ends, seconds since the epoch; the past when it cannot be read."""
    try:
        payload = jwt.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (ValueError, KeyError, TypeError, IndexError):
        return 0.0


class LabelStudioAuth(httpx.Auth):
    """Adds the token to requests for Label Studio's own host, and to no other.

    A personal access token is exchanged for short-lived ones, renewed before they end and after a 401.
    """

    def __init__(self, base_url: str, token: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._origin = urlsplit(base_url)[:2]
        self._token = token
        self._access = ""
        self._lock = threading.Lock()

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign, send, and once more with a fresh token when the first was refused.

        Raises:
            TokenRefused: the personal access token is not taken.
            httpx.HTTPError: Label Studio cannot exchange it now, as it may fail at any other request.
        """
        if urlsplit(str(request.url))[:2] != self._origin:
            yield request
            return
        if not is_personal_access_token(self._token):
            request.headers["Authorization"] = f"Token {self._token}"
            yield request
            return
        with self._lock:
            access = self._access
        if _expiry(access) < time.time() + 10:
            access = self._taken(self._accessed((yield self._exchange())))
        request.headers["Authorization"] = f"Bearer {access}"
        response = yield request
        if response.status_code == 401:
            access = self._taken(self._accessed((yield self._exchange())))
            request.headers["Authorization"] = f"Bearer {access}"
            yield request

    def _exchange(self) -> httpx.Request:
        return httpx.Request("POST", f"{self._base_url}/api/token/refresh/", json={"refresh": self._token})

    def _accessed(self, response: httpx.Response) -> str:
        if response.status_code in {401, 403}:
            raise TokenRefused(
                f"Label Studio at {self._base_url} refuses the personal access token; make a new one under "
                "Account & Settings → Personal Access Token."
            )
        response.read()
        response.raise_for_status()
        try:
            return str(response.json()["access"])
        except (ValueError, KeyError, TypeError) as error:
            raise httpx.DecodingError("the answer to the token is cut", request=response.request) from error

    def _taken(self, access: str) -> str:
        with self._lock:
            self._access = access
        return access
