"""Label Studio through its SDK, with errors a person can act on."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx

from tator_sdk.auth import is_personal_access_token
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

log = logging.getLogger(__name__)

LABELLED = json.dumps(
    {
        "filters": {
            "conjunction": "and",
            "items": [
                {"filter": "filter:tasks:total_annotations", "operator": "greater", "type": "Number", "value": 0}
            ],
        }
    }
)
PUSHED_TOGETHER = 200  # Label Studio counts a whole project's tasks anew after each request
PUSH_SECONDS = 300
WAITS_SECONDS = (1.0, 3.0, 10.0, 30.0)  # before a push is tried again


class StudioError(TatorError):
    """Label Studio cannot be reached, or refuses; the message says what to do.

    Attributes:
        passing: whether the same call may well succeed later.
    """

    def __init__(self, message: str, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


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
        raise _refusal(url, error.status_code, error.body) from error
    except httpx.TimeoutException as error:
        raise StudioError(f"Label Studio at {url} did not answer in time; is it busy or starting?", True) from error
    except httpx.HTTPStatusError as error:
        raise _refusal(url, error.response.status_code, error.response.text) from error
    except httpx.HTTPError as error:
        sentence = f"Label Studio at {url} cannot be reached; is it running, is the address right?"
        raise StudioError(sentence, True) from error


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


@dataclass(frozen=True)
class Pushed:
    """What came of a push.

    Attributes:
        created: predictions that are new.
        there: predictions that were there before, and stayed.
        dropped: tasks whose prediction Label Studio does not have after all.
    """

    created: int
    there: int
    dropped: tuple[int, ...]


class PredictionsOfVersion:
    """The predictions of one model version in a project: at most one a task, however often a push is begun anew."""

    def __init__(self, settings: Settings, project: int, version: str) -> None:
        self._studio: Any = open_studio(settings)
        self._url = settings.label_studio_url
        self._project = project
        self._version = version

    def standing(self) -> dict[int, list[int]]:
        """Their ids by task, oldest first.

        Raises:
            StudioError: Label Studio does not answer.
        """
        found: dict[int, list[int]] = {}
        for number, task in prediction_ids(self._studio, self._url, self._project, lambda it: it == self._version):
            found.setdefault(task, []).append(number)
        return {task: sorted(numbers) for task, numbers in found.items()}

    def push(
        self, tasks: Sequence[int], prediction_of: Callable[[int], dict[str, Any]], before: Callable[[int], None]
    ) -> Pushed:
        """Give each task its prediction unless it has one; those already there keep their ids.

        Args:
            tasks: in the order in which they are pushed.
            prediction_of: makes a task's prediction, asked for only while its batch is sent.
            before: called with the number of tasks done right before each change; may raise to stop.

        Raises:
            StudioError: Label Studio refuses, or does not answer for three quarters of a minute.
        """
        there: int | None = None
        for wait in (*WAITS_SECONDS, None):
            try:
                standing = self.standing()
                there = len(standing.keys() & set(tasks)) if there is None else there
                missing = [task for task in tasks if task not in standing]
                for begin in range(0, len(missing), PUSHED_TOGETHER):
                    batch = missing[begin : begin + PUSHED_TOGETHER]
                    done = len(tasks) - len(missing) + begin
                    self._send([prediction_of(task) for task in batch], partial(before, done))
                break
            except StudioError as error:
                if wait is None or not error.passing:
                    raise
                log.warning("predictions of project %s are pushed again in %g s: %s", self._project, wait, error)
                time.sleep(wait)
        standing = self.standing()
        for number in [late for numbers in standing.values() for late in numbers[1:]]:
            # a request that was given up on, by us or by a killed attempt, went through after all
            before(len(tasks))
            with sentences(self._url):
                self._studio.predictions.delete(number)
        dropped = tuple(task for task in tasks if task not in standing)
        return Pushed(len(tasks) - len(dropped) - (there or 0), there or 0, dropped)

    def _send(self, batch: list[dict[str, Any]], before: Callable[[], None]) -> None:
        """Create predictions; one that Label Studio refuses does not take the others with it."""
        from label_studio_sdk.errors import BadRequestError

        before()
        with sentences(self._url):
            try:
                # never repeated blindly: a request without an answer may have gone through
                options = {"max_retries": 0, "timeout_in_seconds": PUSH_SECONDS}
                self._studio.projects.import_predictions(id=self._project, request=batch, request_options=options)
                return
            except BadRequestError as error:  # then it created none: a task of the batch is gone, say
                if len(batch) == 1:
                    log.warning("the prediction of task %s is refused: %s", batch[0]["task"], error.body)
                    return
        half = len(batch) // 2
        self._send(batch[:half], before)
        self._send(batch[half:], before)


def prediction_ids(studio: Any, url: str, project: int, wanted: Callable[[str], bool]) -> Iterator[tuple[int, int]]:
    """Ids of a project's predictions with their tasks, of those whose model version is wanted.

    Raises:
        StudioError: from the iteration.
    """
    with sentences(url):
        for one in studio.predictions.list(project=project):
            if wanted(str(one.model_version or "")):
                yield int(one.id), int(one.task)


def _refusal(url: str, status: int | None, body: object) -> StudioError:
    if status == 401:
        return StudioError(
            f"Label Studio at {url} refuses the token (401); make a personal access token under Account & Settings. "
            "Legacy tokens are switched off in fresh installations."
        )
    if status == 404:
        return StudioError(f"Label Studio at {url} does not have it (404); check the project's number.")
    detail = body.get("detail") or body if isinstance(body, dict) else body
    passing = status is not None and (status >= 500 or status == 429)
    return StudioError(f"Label Studio at {url} answers {status}: {str(detail)[:300]}", passing)
