"""How Label Studio's process is started and stopped; a program that only listens stands in for it."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import httpx
import pytest

from demo.errors import LabelStudioError
from demo.label_studio import LabelStudio
from tests.studio.server_process import alive, assert_it_ends_with, owned, stand_in, wait_for


@pytest.mark.parametrize(("losses", "starts"), [(2, True), (99, False)])
def test_a_port_lost_between_look_and_bind_is_followed_by_the_next(tmp_path: Path, losses: int, starts: bool) -> None:
    studio = LabelStudio(stand_in(tmp_path, losses))
    try:
        if starts:
            studio.start()
            assert httpx.get(studio.url + "/health", trust_env=False).is_success
        else:
            with pytest.raises(LabelStudioError, match="already in use"):
                studio.start()
            assert studio.pid is None
    finally:
        studio.stop()
    tried = (studio.home / "tries").read_text().split()
    assert len(tried) == len(set(tried)) == (3 if starts else 5)


def test_owner_is_terminated(tmp_path: Path) -> None:
    with owned(stand_in(tmp_path)) as owner:
        assert_it_ends_with(owner, signal.SIGTERM)


def test_another_thread_stops_it_while_it_starts(tmp_path: Path) -> None:
    studio = LabelStudio(stand_in(tmp_path, seconds=30))
    pids: list[int | None] = []

    def stop_soon(_: str) -> None:
        pids.append(studio.pid)
        threading.Thread(target=studio.stop).start()

    with pytest.raises(LabelStudioError, match=r"(stopped|ended) while starting"):
        studio.start(stop_soon)
    assert pids[0] is not None
    assert wait_for(lambda: not alive(int(pids[0] or 0)))


def test_server_is_late(tmp_path: Path) -> None:
    studio = LabelStudio(stand_in(tmp_path, seconds=30))
    with pytest.raises(LabelStudioError, match="not up after 0 s"):
        studio.start(seconds=0.2)
    assert studio.pid is None
    assert not (studio.home / "process.json").exists()
