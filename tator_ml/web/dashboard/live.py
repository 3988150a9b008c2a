"""What changes by itself on open pages, told by server-sent events (https://html.spec.whatwg.org/#server-sent-events).

A stream holds one thread of the web process, which sleeps; what it tells is made once a second for everybody who looks
at the same thing, however many they are.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from flask import Response, g, request, stream_with_context

from tator_ml.web.access import still_welcome

EVERY_SECONDS = 1.0
QUIET_SECONDS = 15.0
"""After this long without news a comment is sent, which fails where nobody listens any more."""
STREAM_SECONDS = 600.0
"""After this long a stream ends; the browser opens another."""
RETRY = b"retry: 3000\n\n"

Parts = Mapping[str, str]
"""HTML by the id of the element that it fills."""


class _Topic:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.listeners = 0
        self.made = float("-inf")
        self.parts: Parts = {}


class Live:
    """Streams by topic."""

    def __init__(self, most_streams: int = 256) -> None:
        """Prepare.

        Args:
            most_streams: that are open at once; a page that gets none asks again in a quarter of a minute. A browser
                does not do that by itself after a refusal: ``dashboard.js`` does, whatever the refusal was.
        """
        self._most_streams = most_streams
        self._lock = threading.Lock()
        self._topics: dict[str, _Topic] = {}
        self._ended = threading.Event()

    @property
    def streams(self) -> int:
        """How many are open."""
        with self._lock:
            return sum(topic.listeners for topic in self._topics.values())

    def stream(self, topic: str, look: Callable[[], Parts]) -> Response:
        """Answer a request with what changes.

        Args:
            topic: what is looked at; the same for everybody who may see the same of it, as ``jobs:1,4`` for whoever
                may see projects 1 and 4.
            look: makes the parts, in the request's context; with an empty answer the stream ends for good.
        """
        with self._lock:
            if sum(one.listeners for one in self._topics.values()) >= self._most_streams:
                busy = Response("Too many pages are open; this one asks again in a while.\n", 503)
                busy.headers["Retry-After"] = "30"
                return busy
            shared = self._topics.setdefault(topic, _Topic())
            shared.listeners += 1
        telling = self._tell(shared, look, request.environ.get("gunicorn.socket"))
        answer = Response(stream_with_context(telling), mimetype="text/event-stream")
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["X-Accel-Buffering"] = "no"  # a proxy must not keep it back
        answer.call_on_close(lambda: self._leave(topic))
        return answer

    def stop(self) -> None:
        """End all streams."""
        self._ended.set()

    def _tell(self, shared: _Topic, look: Callable[[], Parts], listener: socket.socket | None) -> Iterator[bytes]:
        yield RETRY
        g.for_many = True  # what is made here goes to others too: forms leave out the visitor's token
        told: dict[str, str] = {}
        ends, spoken = time.monotonic() + STREAM_SECONDS, time.monotonic()
        while time.monotonic() < ends and still_welcome():  # else the browser asks anew, and is told why not
            parts = self._latest(shared, look)
            if not parts:
                yield b"event: over\ndata: {}\n\n"
                return
            if news := {name: html for name, html in parts.items() if told.get(name) != html}:
                told |= news
                spoken = time.monotonic()
                yield f"data: {json.dumps(news)}\n\n".encode()
            elif time.monotonic() - spoken > QUIET_SECONDS:
                spoken = time.monotonic()
                yield b": still here\n\n"
            if self._ended.wait(EVERY_SECONDS) or _gone(listener):
                return

    @staticmethod
    def _latest(shared: _Topic, look: Callable[[], Parts]) -> Parts:
        with shared.lock:  # whoever comes first looks for all
            if time.monotonic() - shared.made > 0.9 * EVERY_SECONDS:
                shared.parts = look()
                shared.made = time.monotonic()
            return shared.parts

    def _leave(self, topic: str) -> None:
        with self._lock:
            known = self._topics[topic]
            known.listeners -= 1
            if not known.listeners:
                del self._topics[topic]


def _gone(listener: socket.socket | None) -> bool:
    """Whether the other end has hung up, which a stream with nothing to tell would notice late."""
    if listener is None:
        return False
    try:
        return listener.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
