"""Label Studio through its SDK, with errors a person can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx

from tator_sdk.auth import is_personal_access_token
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio


class StudioError(TatorError):
    """Label Studio cannot be reached, or refuses; the message says what to do."""


def open_studio(settings: Settings) -> LabelStudio:
    """A client with the settings' address and token, either kind of token.

    Raises:
        StudioError: no token is set.
    """
    if settings.label_studio_api_key is None:
        raise StudioError(
            "No Label Studio token is set: make a personal access token under Account & Settings and give it as "
            "LABEL_STUDIO_API_KEY or --token."
        )
    from label_studio_sdk import LabelStudio  # its import takes a second: not for every verb

    with sentences(settings.label_studio_url):
        return LabelStudio(
            base_url=settings.label_studio_url,
            api_key=settings.label_studio_api_key.get_secret_value(),
            timeout=60,
        )


def token_kind(settings: Settings) -> str:
    """``personal access token`` or ``legacy token``, as the settings' token looks."""
    key = settings.label_studio_api_key
    personal = key is not None and is_personal_access_token(key.get_secret_value())
    return "personal access token" if personal else "legacy token"


@contextmanager
def sentences(url: str) -> Iterator[None]:
    """Turn the SDK's and httpx's errors into sentences.

    Raises:
        StudioError: for every failure of a call to Label Studio.
    """
    from label_studio_sdk.core.api_error import ApiError

    try:
        yield
    except ApiError as error:
        raise StudioError(_refusal(url, error.status_code, error.body)) from error
    except httpx.TimeoutException as error:
        raise StudioError(f"Label Studio at {url} did not answer in time; is it busy or starting?") from error
    except httpx.HTTPStatusError as error:
        raise StudioError(_refusal(url, error.response.status_code, error.response.text)) from error
    except httpx.HTTPError as error:
        raise StudioError(f"Label Studio at {url} cannot be reached; is it running, is the address right?") from error


def _refusal(url: str, status: int | None, body: object) -> str:
    if status == 401:
        return (
            f"Label Studio at {url} refuses the token (401); make a personal access token under Account & Settings. "
            "Legacy tokens are switched off in fresh installations."
        )
    if status == 404:
        return f"Label Studio at {url} does not have it (404); check the project's number."
    detail = body.get("detail") or body if isinstance(body, dict) else body
    return f"Label Studio at {url} answers {status}: {str(detail)[:300]}"
