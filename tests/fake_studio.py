"""Label Studio's bulk endpoints in memory: called directly, or served over HTTP to other processes."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
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
    """Predictions of one project, as Label Studio 1.23.2 keeps them.

    Attributes:
        config: labelling configuration.
        held: predictions, with ``id``, ``task``, ``model_version`` and what else was given.
        requests: predictions of each request that came through.
        forgets: tasks whose prediction is dropped without a word.
        refuses: tasks for which a whole request is refused.
        fails: raised, one by one, after a request was written.
        write_seconds: how long writing a request takes; it goes on where the caller is gone.
        cuts: for each of the next requests, seconds from cutting the connection to writing it.
    """

    config: str = "<View/>"
    project: int = 7
    held: list[Any] = field(default_factory=list)
    requests: list[list[dict[str, Any]]] = field(default_factory=list)
    forgets: set[int] = field(default_factory=set)
    refuses: set[int] = field(default_factory=set)
    fails: list[Exception] = field(default_factory=list)
    write_seconds: float = 0.0
    cuts: list[float] = field(default_factory=list)
    listed: int = 0
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
        if method == "DELETE" and (found := re.fullmatch(r"/api/predictions/(\d+)/?", parts.path)):
            self.delete(int(found[1]))
            return 204, None
        return 404, {"detail": f"{method} {url}"}

    def _import(self, predictions: list[dict[str, Any]]) -> tuple[int, Any]:
        if self.refuses & {one["task"] for one in predictions}:
            return 400, {"detail": "task not found"}
        if self.cuts:
            threading.Timer(self.cuts.pop(0), self._write, [predictions]).start()
            raise CutError
        time.sleep(self.write_seconds)
        kept = self._write(predictions)
        if self.fails:
            raise self.fails.pop(0)
        return 201, {"created": kept}

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

            do_GET = do_POST = do_DELETE = _answer

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
