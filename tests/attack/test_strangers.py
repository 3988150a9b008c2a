"""Whoever reaches the engine's port or socket and knows no key: others are answered all the same."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from tator_ml.engine import wire
from tator_ml.engine.client import EngineClient
from tator_ml.engine.engine import Engine
from tator_ml.engine.messages import EngineError
from tator_ml.engine.server import MOST_GREETINGS, EngineServer
from tator_ml.images.store import ImageStore
from tator_ml.running.processes import free_port
from tator_sdk.settings import Settings
from tests.wire.conftest import BrightSegmenter

RUBBISH = {
    "http": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "frame that is too long": b"\x7f\xff\xff\xff",
    "frame of no length": b"\xff\xff\xff\xff" + b"\x00" * 8,
    "wrong proof": b"\x00\x00\x00\x05wrong",
    "nothing": b"",
}


class Served:
    """An engine of this process with its client."""

    def __init__(self, settings: Settings) -> None:
        store = ImageStore(settings.home / "images", 10**9)
        self.settings = settings
        self.server = EngineServer(settings, lambda: Engine(settings, store, BrightSegmenter(), None))
        self.thread = threading.Thread(target=self.server.serve, daemon=True)
        self.thread.start()
        self.client = EngineClient(settings, store)

    def connect(self) -> socket.socket:
        place = wire.parse_address(self.settings.engine_addresses[0])
        if isinstance(place, tuple):
            return socket.create_connection(place, 10)
        line = socket.socket(socket.AF_UNIX)
        line.connect(place)
        line.settimeout(10)
        return line

    def answers(self) -> float:
        """Seconds until a newcomer, who brings the key, is answered."""
        began = time.monotonic()
        self.client.close()
        self.client.status()
        return time.monotonic() - began


@pytest.fixture(params=["tcp", "unix"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    address = f"127.0.0.1:{free_port(19520)}" if request.param == "tcp" else None
    made = Served(Settings(home=tmp_path, engine_address=address, engine_key=SecretStr("k" * 20)))
    yield made
    made.client.close()
    made.server.close()


@pytest.mark.parametrize("what", RUBBISH)
def test_rubbish_in_place_of_a_proof_ends_no_engine(served: Served, what: str) -> None:
    for _ in range(3):
        with served.connect() as line:
            line.sendall(RUBBISH[what])
            if RUBBISH[what]:
                line.recv(100)  # the challenge: it was accepted
        assert served.answers() < 5
    assert served.thread.is_alive()


def test_who_says_nothing_keeps_nobody_out(served: Served) -> None:
    lines = [served.connect() for _ in range(3)]
    assert served.answers() < 5
    lines += [served.connect() for _ in range(3 * MOST_GREETINGS)]
    assert served.answers() < 5
    assert len(served.server._greetings) <= MOST_GREETINGS
    challenge = lines[0].recv(100)
    assert challenge and lines[0].recv(100) == b"", "the first of too many was hung up on"
    for line in lines:
        line.close()


def test_who_says_nothing_is_hung_up_on(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "GREETING_SECONDS", 0.5)
    with served.connect() as line:
        began = time.monotonic()
        assert line.recv(100) and line.recv(100) == b""
        assert time.monotonic() - began < 5


def test_the_key_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, seen = Settings(home=tmp_path), list[str]()
    path = tmp_path / "run" / "engine.key"
    link = os.link

    def linked(part: str, target: Path) -> None:
        seen.append("written" if Path(part).read_text() and not path.exists() else "half")
        path.write_text("of another process")
        link(part, target)

    monkeypatch.setattr(os, "link", linked)
    assert wire.shared_key(settings) == b"of another process" and seen == ["written"]
    assert [one.name for one in path.parent.iterdir()] == ["engine.key"]
    path.write_text("")
    with pytest.raises(EngineError, match="empty"):
        wire.shared_key(settings)
