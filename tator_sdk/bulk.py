"""Label Studio's endpoints for many records at once.

The SDK wraps them a record at a time: it reads whole lists into memory, and does not tell when a request is on its
way. Facts about the endpoints are those of Label Studio 1.23.2, read in its source and measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import httpx

from tator_sdk.auth import LabelStudioAuth
from tator_sdk.settings import Settings
from tator_sdk.studio import StudioError, broken_off, refusal, require_token, sentences

ANSWER_SECONDS = 120.0
WRITE_SECONDS = 600.0  # after a push Label Studio counts the predictions of the whole project: 2.7 ms for each
TASKS_A_PAGE = 1000
REQUEST_SENT = "http11.send_request_body.complete"  # httpcore's name for it, documented under "trace"


@dataclass(frozen=True)
class PredictionId:
    """A prediction: its number, whose it is, and which model made it."""

    number: int
    task: int
    version: str


class BulkApi:
    """One connection to Label Studio, for one thread; a context manager."""

    def __init__(self, url: str, auth: httpx.Auth | None = None, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, auth=auth, timeout=ANSWER_SECONDS, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **params: Any) -> Any:
        """The JSON that an address answers.

        Raises:
            StudioError: Label Studio refuses, or does not answer.
        """
        return self._json(self._client.build_request("GET", path, params=params))

    def post(
        self,
        path: str,
        content: bytes,
        params: Mapping[str, Any] | None = None,
        sent: Callable[[], None] = lambda: None,
    ) -> Any:
        """Send JSON, once and never again by itself: a request without an answer may have gone through.

        Args:
            path: of the endpoint.
            content: JSON.
            params: of the address.
            sent: called when the last byte is on its way, and no answer is there.

        Raises:
            StudioError: Label Studio refuses, or does not answer.
        """

        def trace(event: str, _: Mapping[str, Any]) -> None:
            if event == REQUEST_SENT:
                sent()

        request = self._client.build_request(
            "POST", path, content=content, params=params, timeout=WRITE_SECONDS,
            headers={"Content-Type": "application/json"}, extensions={"trace": trace},
        )  # fmt: skip
        return self._json(request)

    def upload(self, path: str, files: Sequence[tuple[str, bytes]], params: Mapping[str, Any]) -> Any:
        """Send files, each a name with its content.

        Raises:
            StudioError: Label Studio refuses, or does not answer.
        """
        # Label Studio goes by the field names: two files under one name are one
        parts = [(f"file{number}", file) for number, file in enumerate(files)]
        return self._json(self._client.build_request("POST", path, files=parts, params=params, timeout=WRITE_SECONDS))

    def delete(self, path: str, content: Any = None) -> None:
        """Delete what an address stands for; one that is gone already is no error.

        Raises:
            StudioError: Label Studio refuses, or does not answer.
        """
        request = self._client.build_request("DELETE", path, json=content, timeout=WRITE_SECONDS)
        with sentences(self.url):
            answer = self._client.send(request)
            if answer.status_code != 404:
                answer.raise_for_status()

    def predictions(self, project: int) -> Iterator[PredictionId]:
        """A project's predictions, as the answer comes in; only their ids are kept, never their regions.

        Raises:
            StudioError: from the iteration.
        """
        import ijson

        with (
            sentences(self.url),
            self._client.stream(
                "GET", "/api/predictions", params={"project": project}, timeout=WRITE_SECONDS
            ) as answer,
        ):
            if not answer.is_success:
                answer.read()
                answer.raise_for_status()
            try:
                for one in ijson.items(_Readable(answer.iter_bytes(2**16)), "item"):
                    yield PredictionId(int(one["id"]), int(one["task"]), str(one.get("model_version") or ""))
            except ijson.JSONError as error:  # without a length, a cut answer only looks complete
                raise StudioError(f"Label Studio at {self.url} broke off its list of predictions.", True) from error

    def predictions_of_task(self, task: int) -> list[PredictionId]:
        """The predictions of one task.

        Raises:
            StudioError: Label Studio refuses, or does not answer.
        """
        found = self.get("/api/predictions", task=task)
        return [PredictionId(int(one["id"]), task, str(one.get("model_version") or "")) for one in found]

    def prediction_count(self, project: int, version: str) -> int:
        """How many predictions of a version there are; counted by the database, so it takes no time.

        Raises:
            StudioError: Label Studio refuses, or does not answer.
        """
        return int(self.get(f"/api/projects/{project}/model-versions/").get(version, 0))

    def tasks(self, project: int, *fields: str, query: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """A project's tasks, each once, a page at a time, with just the fields that are named.

        Args:
            project: its number.
            fields: such as ``id``, ``data``, ``meta``, ``annotations``.
            query: filters as the Data Manager's tabs have them.

        Raises:
            StudioError: from the iteration.
        """
        params: dict[str, Any] = {
            "project": project, "page_size": TASKS_A_PAGE, "resolve_uri": "false", "include": ",".join(fields),
        }  # fmt: skip
        if {"annotations", "predictions", "drafts"} & set(fields):
            params["fields"] = "all"
        if query is not None:
            params["query"] = json.dumps(query)
        seen: set[int] = set()  # pages shift where somebody adds tasks meanwhile
        page, total = 1, 1
        while (page - 1) * TASKS_A_PAGE < total:
            answer = self.get("/api/tasks", page=page, **params)
            total = int(answer["total"])
            for task in answer["tasks"]:
                if task["id"] not in seen:
                    seen.add(task["id"])
                    yield task
            page += 1

    def delete_tasks(self, project: int, tasks: Sequence[int]) -> None:
        """Delete tasks with all that is in them, many in one request.

        Raises:
            StudioError: Label Studio refuses, or does not answer.
        """
        if tasks:
            chosen = {"selectedItems": {"all": False, "included": list(tasks)}}
            self.post("/api/dm/actions", json.dumps(chosen).encode(), {"id": "delete_tasks", "project": project})

    def _json(self, request: httpx.Request) -> Any:
        with sentences(self.url):
            answer = self._client.send(request)
            if not answer.is_success:
                raise refusal(self.url, answer.status_code, _body(answer))
            try:
                return answer.json() if answer.content else None
            except ValueError as error:
                raise broken_off(self.url) from error


def open_bulk(settings: Settings) -> BulkApi:
    """A connection with the settings' address and token, either kind of token.

    Raises:
        StudioError: no token is set.
    """
    token = require_token(settings)
    return BulkApi(settings.label_studio_url, LabelStudioAuth(settings.label_studio_url, token))


class _Readable:
    """Chunks of bytes as the file that ijson reads."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    def read(self, size: int) -> bytes:
        if size == 0:  # ijson asks first what kind of file it is
            return b""
        return next(self._chunks, b"")


def _body(answer: httpx.Response) -> object:
    try:
        return answer.json()
    except ValueError:
        return answer.text
