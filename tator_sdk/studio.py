"""Label Studio through its SDK, with errors a person can act on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from tator_sdk.auth import is_personal_access_token
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio


def _annotated(operator: str) -> str:
    """A filter of the Data Manager by the number of annotations."""
    item = {"filter": "filter:tasks:total_annotations", "operator": operator, "type": "Number", "value": 0}
    return json.dumps({"filters": {"conjunction": "and", "items": [item]}})


LABELLED, UNLABELLED = _annotated("greater"), _annotated("equal")


class StudioError(TatorError):
    """Label Studio cannot be reached, or refuses; the message says what to do.

    Attributes:
        passing: whether the same call may well succeed later.
        status: that was answered; None where there was no answer.
        unsent: the request surely did not reach Label Studio.
    """

    def __init__(self, message: str, passing: bool = False, status: int | None = None, unsent: bool = False) -> None:
        super().__init__(message)
        self.passing = passing
        self.status = status
        self.unsent = unsent


def open_studio(settings: Settings) -> LabelStudio:
    """A client with the settings' address and token, either kind of token.

    Raises:
        StudioError: no token is set.
    """
    token = require_token(settings)
    from label_studio_sdk import LabelStudio  # its import takes a second: not for every verb

    with sentences(settings.label_studio_url):
        return LabelStudio(base_url=settings.label_studio_url, api_key=token, timeout=60)


def require_token(settings: Settings) -> str:
    """The token for Label Studio.

    Raises:
        StudioError: none is set.
    """
    if settings.label_studio_api_key is None:
        raise StudioError(
            "No Label Studio token is set: make a personal access token under Account & Settings and give it as "
            "LABEL_STUDIO_API_KEY or --token."
        )
    return settings.label_studio_api_key.get_secret_value()


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
        raise refusal(url, error.status_code, error.body) from error
    except httpx.TimeoutException as error:
        raise StudioError(f"Label Studio at {url} did not answer in time; is it busy or starting?", True) from error
    except httpx.HTTPStatusError as error:
        raise refusal(url, error.response.status_code, error.response.text) from error
    except httpx.HTTPError as error:
        sentence = f"Label Studio at {url} cannot be reached; is it running, is the address right?"
        raise StudioError(sentence, True, unsent=isinstance(error, httpx.ConnectError)) from error


def labelled_tasks(studio: Any, url: str, project: int) -> Iterator[Any]:
    """Tasks of a project that have annotations, each once, fetched a page at a time.

    Reading one by one with ``tasks.get`` would count as opening it, and Label Studio would ask the backend.

    Raises:
        StudioError: from the iteration.
    """
    seen: set[int] = set()  # pages shift where somebody labels meanwhile
    with sentences(url):
        for task in studio.tasks.list(project=project, query=LABELLED, page_size=100):
            if task.id not in seen:
                seen.add(task.id)
                yield task


def broken_off(url: str) -> StudioError:
    """An answer that ends in the middle: without a length, a cut one only looks complete."""
    return StudioError(f"Label Studio at {url} broke off its answer; try again.", True)


def refusal(url: str, status: int | None, body: object) -> StudioError:
    """What a status means that is no success, or that came with half an answer, in a sentence."""
    if status == 401:
        return StudioError(
            f"Label Studio at {url} refuses the token (401); make a personal access token under Account & Settings. "
            "Legacy tokens are switched off in fresh installations.",
            status=status,
        )
    if status == 404:
        return StudioError(f"Label Studio at {url} does not have it (404); check the project's number.", status=status)
    if status is not None and 200 <= status < 300:
        return broken_off(url)
    detail = body.get("detail") or body if isinstance(body, dict) else body
    passing = status is not None and (status >= 500 or status == 429)
    return StudioError(f"Label Studio at {url} answers {status}: {str(detail)[:300]}", passing, status)
