"""How long the web process waits for those who send slowly, so that they never hold all of its threads.

Gunicorn's threaded worker reads a request in the thread that answers it, with no limit of time: a few hundred
connections that trickle a byte a second (slowloris) would leave nobody to answer a click. Here a connection that is
silent holds no thread at all, and of those that trickle, a quarter of the threads is the most; see Apache's
``mod_reqtimeout`` for the same idea. Who takes nothing of an answer any more is hung up on, too.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from typing import Any

from gunicorn.workers import gthread

SILENT_SECONDS = 0.02
"""How long a thread waits for the first byte, before the connection goes back to the poller."""
GRACE_SECONDS = 1.0
"""Waiting for a sender, all in all, before it counts as slow."""
LONGEST_SECONDS = 20.0
"""The same, after which a slow one is hung up on in any case."""
LEAST_BYTES_PER_SECOND = 4096
"""Whoever sends at this rate is not slow, however much it is."""
SHARE = 4
"""One thread in so many may wait for slow senders."""
LOOK_SECONDS = 0.25
SEND_SECONDS = 60
"""How long a thread waits for somebody to take any more of an answer."""


class Incoming:
    """A connection's socket as its request is read from it: knows how long it was waited for, and for how much."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._waited = 0.0
        self._since: float | None = None
        self._nbytes = 0

    def recv(self, size: int, *flags: int) -> bytes:
        """See :meth:`socket.socket.recv`."""
        self._since = time.monotonic()
        try:
            data = self._line.recv(size, *flags)
        finally:
            self._waited += time.monotonic() - self._since
            self._since = None
        self._nbytes += len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._line, name)

    def begin(self) -> None:
        """Count anew: another request comes over the same connection."""
        self._waited, self._nbytes = 0.0, 0

    def slow_seconds(self, now: float) -> float:
        """How long a thread has been waiting for a slow sender; 0 where none waits, or the sender is quick enough."""
        since = self._since
        if since is None:
            return 0.0
        waited = self._waited + now - since
        return waited if waited > GRACE_SECONDS and self._nbytes < LEAST_BYTES_PER_SECOND * waited else 0.0

    def hang_up(self) -> None:
        """End the connection; the thread that waits for it finds that out at once."""
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)


class PatientWorker(gthread.ThreadWorker):  # type: ignore[misc]
    """Gunicorn's threaded worker, with patience that ends."""

    def init_process(self) -> None:
        """Begin to watch, then do as gunicorn does."""
        self._incoming: dict[Any, Incoming] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, name="tator-patience", daemon=True).start()
        super().init_process()

    def handle(self, conn: Any) -> Any:
        """Answer a connection's next request, in a thread of the pool."""
        if not conn.initialized and not conn.data_ready and not _readable(conn.sock):
            return gthread._DEFER
        conn.sock.setblocking(True)
        limit_sending(conn.sock)
        conn.init()
        unreader = conn.parser.unreader
        if not isinstance(unreader.sock, Incoming):
            unreader.sock = Incoming(unreader.sock)
        unreader.sock.begin()
        with self._lock:
            self._incoming[conn] = unreader.sock
        try:
            return super().handle(conn)
        finally:
            with self._lock:
                self._incoming.pop(conn, None)

    def _watch(self) -> None:
        most = max(1, self.cfg.threads // SHARE)
        while True:
            time.sleep(LOOK_SECONDS)
            with self._lock:
                incoming = list(self._incoming.values())
            for one in too_slow(incoming, most, time.monotonic()):
                one.hang_up()


def too_slow(incoming: list[Incoming], most: int, now: float) -> list[Incoming]:
    """Of the connections that are read from, those to hang up on: beyond ``most`` slow ones, the slowest first."""
    waits = [(one.slow_seconds(now), one) for one in incoming]
    slow = sorted((wait for wait in waits if wait[0]), key=lambda wait: -wait[0])
    overdue = sum(seconds > LONGEST_SECONDS for seconds, _ in slow)
    return [one for _, one in slow[: max(overdue, len(slow) - most)]]


def limit_sending(line: socket.socket, seconds: int = SEND_SECONDS) -> None:
    """Let a blocking socket's ``send`` fail where for so long not a byte could be sent (``SO_SNDTIMEO``, socket(7))."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", seconds, 0))


def _readable(line: socket.socket) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(line, selectors.EVENT_READ)
        return bool(selector.select(SILENT_SECONDS))
