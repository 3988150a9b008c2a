"""Label Studio's bulk endpoints in memory: called directly, or served over HTTP to other processes."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from tator_sdk.bulk import BulkApi


class CutError(Exception):
    """The connection ends without an answer."""


@dataclass
class FakeLabelStudio:
    """Tasks and predictions of one project, as Label Studio 1.23.2 keeps them.

    Attributes:
        config: labelling configuration.
        held: predictions, with ``id``, ``task``, ``model_version`` and what else was given.
        requests: predictions of each request that came through.
        forgets: tasks whose prediction is dropped without a word.
        refuses: tasks for which a whole request is refused.
        fails: raised, one by one, after a request was written.
        write_seconds: how long writing a request takes; it goes on where the caller is gone.
        cuts: for each of the next requests, seconds from cutting the connection to writing it; None: never.
        tasks: with ``data``, ``meta``, ``annotations`` and ``predictions``, by number.
        uploads: names of uploaded files, by number.
        storages: rows of local storages.
        drafts: numbers of annotations that somebody has unsaved changes on.
    """

    config: str = "<View/>"
    project: int = 7
    held: list[Any] = field(default_factory=list)
    requests: list[list[dict[str, Any]]] = field(default_factory=list)
    forgets: set[int] = field(default_factory=set)
    refuses: set[int] = field(default_factory=set)
    fails: list[Exception] = field(default_factory=list)
    write_seconds: float = 0.0
    cuts: list[float | None] = field(default_factory=list)
    tasks: dict[int, dict[str, Any]] = field(default_factory=dict)
    uploads: dict[int, str] = field(default_factory=dict)
    storages: list[dict[str, Any]] = field(default_factory=list)
    refused_names: set[str] = field(default_factory=set)
    drafts: set[int] = field(default_factory=set)
    listed: int = 0
    _annotations: int = 0
    _unique: dict[str, int] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.RLock, repr=False)

    def hold(self, task: int, model_version: str, **more: Any) -> int:
        """Keep a prediction; returns its id."""
        with self._lock:
            number = 1 + max((one.id for one in self.held), default=0)
            self.held.append(SimpleNamespace(id=number, task=task, model_version=model_version, **more))
        return number

    def delete(self, number: int) -> None:
        """Delete a prediction that must be there."""
        with self._lock:
            assert number in [one.id for one in self.held]
            self.held = [one for one in self.held if one.id != number]

    def api(self) -> BulkApi:
        """A connection to it."""

        def answer(request: httpx.Request) -> httpx.Response:
            status, content = self.answer(request.method, str(request.url), request.content)
            return httpx.Response(status, json=content)

        return BulkApi("http://label-studio", transport=httpx.MockTransport(answer))

    def answer(self, method: str, url: str, content: bytes) -> tuple[int, Any]:
        """The status and JSON that a request is answered with."""
        parts = urlsplit(url)
        params = {name: values[0] for name, values in parse_qs(parts.query).items()}
        base = f"/api/projects/{self.project}"
        if method == "GET" and parts.path == base:
            return 200, {"label_config": self.config}
        if method == "GET" and parts.path == f"{base}/model-versions/":
            counts: dict[str, int] = {}
            for one in self.held:
                counts[one.model_version] = counts.get(one.model_version, 0) + 1
            return 200, counts
        if method == "GET" and parts.path == "/api/predictions":
            self.listed += "project" in params
            wanted = [one for one in self.held if params.get("task") in {None, str(one.task)}]
            return 200, [vars(one) for one in wanted]
        if method == "POST" and parts.path == f"{base}/import/predictions":
            return self._import(json.loads(content))
        if parts.path == f"{base}/import":
            return self._import_tasks(json.loads(content)) if content[:1] == b"[" else self._upload(content)
        if parts.path == "/api/tasks":
            return self._list_tasks(params)
        if parts.path == "/api/storages/localfiles":
            return 200, self.storages
        if parts.path == f"{base}/file-uploads" and method == "GET":
            wanted_ids = json.loads(params["ids"]) if "ids" in params else list(self.uploads)
            return 200, [{"id": number, "file": self.uploads[number]} for number in wanted_ids]
        if parts.path == f"{base}/file-uploads":
            for number in json.loads(content)["file_upload_ids"]:
                self.uploads.pop(number, None)  # what is not there is passed over
            return 200, {}
        if parts.path == "/api/dm/actions" and params["id"] == "delete_tasks":
            for number in json.loads(content)["selectedItems"]["included"]:
                del self.tasks[number]
            return 200, {}
        if found := re.fullmatch(r"/api/tasks/(\d+)/annotations/", parts.path):
            return self._annotate(int(found[1]), json.loads(content))
        if found := re.fullmatch(r"/api/annotations/(\d+)/", parts.path):
            return self._one_annotation(method, int(found[1]), content)
        if found := re.fullmatch(r"/api/tasks/(\d+)/drafts", parts.path):
            numbers = {row["id"] for row in self.tasks[int(found[1])]["annotations"]}
            return 200, [{"annotation": number, "result": []} for number in sorted(self.drafts & numbers)]
        if method == "DELETE" and parts.path == f"{base}/model-versions/":
            version = json.loads(content)["model_version"]
            self.held = [one for one in self.held if one.model_version != version]
            return 200, {}
        if method == "DELETE" and (found := re.fullmatch(r"/api/predictions/(\d+)/?", parts.path)):
            self.delete(int(found[1]))
            return 204, None
        return 404, {"detail": f"{method} {url}"}

    def _import(self, predictions: list[dict[str, Any]]) -> tuple[int, Any]:
        if self.refuses & {one["task"] for one in predictions}:
            return 400, {"detail": "task not found"}
        self._cut(self._write, predictions)
        time.sleep(self.write_seconds)
        kept = self._write(predictions)
        if self.fails:
            raise self.fails.pop(0)
        return 201, {"created": kept}

    def _cut(self, write: Callable[[list[dict[str, Any]]], Any], records: list[dict[str, Any]]) -> None:
        """End the connection if one is to be cut, and write the records later, or not at all."""
        if self.cuts:
            seconds = self.cuts.pop(0)
            if seconds is not None:
                threading.Timer(seconds, write, [records]).start()
            raise CutError

    def _import_tasks(self, tasks: list[dict[str, Any]]) -> tuple[int, Any]:
        if any(name in json.dumps(task) for task in tasks for name in self.refused_names):
            return 400, {"detail": "task refused"}
        self._cut(self._add_tasks, tasks)
        time.sleep(self.write_seconds)
        self._add_tasks(tasks)
        if self.fails:
            raise self.fails.pop(0)
        return 201, {"task_count": len(tasks)}

    def _add_tasks(self, tasks: list[dict[str, Any]]) -> None:
        with self._lock:
            self.requests.append(tasks)
            for task in tasks:
                number = max(self.tasks, default=0) + 1
                rows = [self._annotation(row["result"], row.get("id")) for row in task.get("annotations", [])]
                self.tasks[number] = {"id": number, "meta": {}, "predictions": [], **task, "annotations": rows}

    def _annotation(self, result: Any, import_id: int | None) -> dict[str, Any]:
        self._annotations += 1
        now = "2026-01-02T03:04:05.000000Z"
        return {
            "id": self._annotations, "result": result, "import_id": import_id, "created_at": now, "updated_at": now,
        }  # fmt: skip

    def _annotate(self, task: int, given: dict[str, Any]) -> tuple[int, Any]:
        with self._lock:
            if given["unique_id"] in self._unique:
                return 409, {"detail": "Annotation with this unique id already exists"}
            row = self._annotation(given["result"], given["import_id"])
            self._unique[given["unique_id"]] = row["id"]
            self.tasks[task]["annotations"].append(row)
            return 201, row

    def _list_tasks(self, params: dict[str, str]) -> tuple[int, Any]:
        found = list(self.tasks.values())
        if "query" in params:
            (item,) = json.loads(params["query"])["filters"]["items"]
            name = item["filter"].rpartition("tasks:")[2]
            if name == "id":
                found = [task for task in found if item["value"]["min"] <= task["id"] <= item["value"]["max"]]
            else:
                key = name.removeprefix("data.")
                found = [task for task in found if task["data"].get(key) == item["value"]]
        size, page = int(params["page_size"]), int(params["page"])
        return 200, {"total": len(found), "tasks": found[(page - 1) * size : page * size]}

    def _upload(self, content: bytes) -> tuple[int, Any]:
        names = re.findall(rb'filename="([^"]+)"', content)
        first = max(self.uploads, default=0) + 1
        for number, name in enumerate(names, first):
            self.uploads[number] = f"upload/{self.project}/{number:08x}-{name.decode()}"
        return 201, {"file_upload_ids": list(range(first, first + len(names)))}

    def _one_annotation(self, method: str, number: int, content: bytes) -> tuple[int, Any]:
        pairs = [(task["id"], row) for task in self.tasks.values() for row in task["annotations"]]
        task, row = next(((task, row) for task, row in pairs if row["id"] == number), (None, None))
        if row is None:
            return 404, {"detail": "Not found."}
        if method == "DELETE":
            self._delete_annotation(number)
            return 204, None
        if method == "PATCH":
            row["result"] = json.loads(content)["result"]
            self.drafts.discard(number)  # as Label Studio does, whoever's they are
        return 200, {**row, "task": task}

    def _delete_annotation(self, number: int) -> None:
        for task in self.tasks.values():
            task["annotations"] = [row for row in task["annotations"] if row["id"] != number]
        self._unique = {name: row for name, row in self._unique.items() if row != number}

    def _write(self, predictions: list[dict[str, Any]]) -> int:
        with self._lock:  # one transaction
            self.requests.append(predictions)
            return len([self.hold(**one) for one in predictions if one["task"] not in self.forgets])

    @contextmanager
    def served(self) -> Iterator[str]:
        """Answer over HTTP on a free port of the loopback; gives the address."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                try:
                    status, found = fake.answer(self.command, self.path, content)
                except CutError:
                    self.close_connection = True
                    return
                body = b"" if status == 204 else json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = do_DELETE = _answer

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a caller that was killed
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
