"""A Label Studio in memory, served over HTTP, that fails as it is told: dead, slow, refusing, cut in the middle."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.fake_studio import FakeLabelStudio

Mishap = Literal["dead", "slow", "half", "page", 401, 429, 500]
"""``dead``: no answer; ``slow``: later than the caller waits; ``half``: half of the answer, with or without its
length; ``page``: a proxy's page in the answer's place; else the status."""


def token(seconds: float, **claims: Any) -> str:
    """A JWT as Label Studio makes them, that ends then."""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'HS256'})}.{part({'exp': time.time() + seconds, **claims})}.c2lnbmVk"


@dataclass
class FailingStudio:
    """Answers as `FakeLabelStudio` does, but for its mishaps.

    Attributes:
        fake: what it is.
        mishaps: of the next requests that ``fails`` names, one each; then all is well.
        fails: which requests meet them.
        slow_seconds: how long a slow answer takes.
        watch: told each request before it is answered.
        refresh: personal access tokens that it takes.
        access: short-lived ones that it takes, with their end; None: it asks for none.
        access_seconds: how long one that it gives is good.
        exchanges: how often it gave one.
    """

    fake: FakeLabelStudio
    mishaps: list[Mishap] = field(default_factory=list)
    fails: Callable[[str, str], bool] = lambda method, path: True
    slow_seconds: float = 1.0
    watch: Callable[[str, str], None] = lambda method, path: None
    refresh: set[str] = field(default_factory=set)
    access: dict[str, float] | None = None
    access_seconds: float = 60.0
    exchanges: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)

    def respond(self, method: str, url: str, content: bytes, authorization: str) -> tuple[int, Any]:
        """Status and JSON of an answer without a mishap."""
        path = urlsplit(url).path
        self.watch(method, path)
        if path == "/api/token/refresh/":
            return self._exchange(json.loads(content)["refresh"])
        if self.access is not None:
            given = authorization.removeprefix("Bearer ")
            if self.access.get(given, 0.0) < time.monotonic():
                return 401, {"detail": "Given token not valid for any token type"}
        base = f"/api/projects/{self.fake.project}"
        if method == "GET" and path == f"{base}/":
            count = len(self.fake.tasks)
            return 200, {
                "id": self.fake.project, "title": "T", "label_config": self.fake.config, "task_number": count,
                "num_tasks_with_annotations": count,
            }  # fmt: skip
        if path == "/api/users":
            return 200, []
        if path.rstrip("/") == "/api/tasks":
            params = parse_qs(urlsplit(url).query)
            if "total_annotations" in params.get("query", [""])[0]:
                del params["query"]
            url = f"/api/tasks?{urlencode(params, doseq=True)}"
        return self.fake.answer(method, url, content)

    def _exchange(self, refresh: str) -> tuple[int, Any]:
        if refresh not in self.refresh:
            return 401, {"detail": "Token is blacklisted"}
        self.exchanges += 1
        made = token(self.access_seconds, n=self.exchanges)
        self.access = {**(self.access or {}), made: time.monotonic() + self.access_seconds}
        return 200, {"access": made}

    @contextmanager
    def served(self) -> Iterator[str]:
        """Answer over HTTP on a free port of the loopback; gives the address."""
        studio = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = urlsplit(self.path).path
                studio.requests.append((self.command, path))
                mishap = studio.mishaps.pop(0) if studio.mishaps and studio.fails(self.command, path) else None
                if mishap == "dead":
                    self.close_connection = True
                    return
                if isinstance(mishap, int):
                    self._send(mishap, json.dumps({"detail": f"told to answer {mishap}"}).encode())
                    return
                if mishap == "page":
                    self._send(200, b"<html><body>Sign in to the proxy</body></html>")
                    return
                if mishap == "slow":
                    time.sleep(studio.slow_seconds)
                status, found = studio.respond(
                    self.command, self.path, content, self.headers.get("Authorization") or ""
                )
                body = b"" if status == 204 else json.dumps(found).encode()
                self._send(status, body, half=mishap == "half")

            def _send(self, status: int, body: bytes, half: bool = False) -> None:
                self.send_response(status)
                if half:  # as from a proxy that ends the connection: nothing says how long it was to be
                    self.send_header("Connection", "close")
                    body = body[: len(body) // 2]
                    self.close_connection = True
                else:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_DELETE = do_PATCH = _answer

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a caller that was killed
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
