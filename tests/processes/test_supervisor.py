"""Processes start, are started again, are found after a crash, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tator_ml.running.processes import Part, ProcessError, Supervisor, free_port

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def children_of(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["environ", "status"]):
        environment = process.info["environ"] or {}
        if environment.get("MARK") == str(home) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def part(home: Path, argv: list[str] = SLEEP, **changes: object) -> Part:
    return Part("sleeper", argv, lambda: True, environment={"MARK": str(home)}, **changes)  # type: ignore[arg-type]


def test_stopping_leaves_nothing(tmp_path: Path) -> None:
    with Supervisor(tmp_path, print) as parts:
        parts.start(part(tmp_path))
        assert len(children_of(tmp_path)) == 1
    assert children_of(tmp_path) == []


def test_what_ends_is_started_again(tmp_path: Path) -> None:
    said: list[str] = []
    with Supervisor(tmp_path, said.append) as parts:
        parts.start(part(tmp_path))
        children_of(tmp_path)[0].kill()
        for _ in range(100):
            parts.revive()
            if said[-1].endswith("started again"):
                break
            time.sleep(0.05)
        assert len(children_of(tmp_path)) == 1


def test_a_long_log_is_put_aside_and_its_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tator_ml.running.processes.LOG_BYTES", 1000)
    with Supervisor(tmp_path, print) as parts:
        log = parts.log_path("sleeper")
        log.parent.mkdir()
        log.write_bytes(b"old\n" * 100_000 + "the last: äöü\n".encode())
        assert parts.log_tail("sleeper", 2) == "old\nthe last: äöü" and parts.log_tail("other") == ""
        parts.start(part(tmp_path))
        assert log.stat().st_size == 0 and log.with_name("sleeper.log.1").stat().st_size > 1000


def test_what_keeps_ending_is_given_up_with_its_log(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "print('no such weights')"]
    with Supervisor(tmp_path, print) as parts:
        parts.start(part(tmp_path, argv))
        with pytest.raises(ProcessError, match="no such weights"):
            for _ in range(400):
                parts.revive()
                time.sleep(0.05)


def test_a_part_that_ends_while_starting(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "raise SystemExit('out of luck')"]
    with Supervisor(tmp_path, print) as parts, pytest.raises(ProcessError, match="out of luck"):
        parts.start(Part("hopeless", argv, lambda: False))


def test_a_part_that_is_never_ready(tmp_path: Path) -> None:
    with Supervisor(tmp_path, print) as parts, pytest.raises(ProcessError, match="not ready"):
        parts.start(Part("idle", SLEEP, lambda: False, patience_seconds=0.3))


CRASHING = """
import os, sys
from pathlib import Path
from tator_ml.running.processes import Part, Supervisor
parts = Supervisor(Path(sys.argv[1]), print)
argv = [sys.executable, "-c", "import time; time.sleep(600)"]
parts.start(Part("sleeper", argv, lambda: True, environment={"MARK": sys.argv[1]}))
print("started", flush=True)
sys.stdin.read()
"""


def test_a_leftover_of_a_crash_is_stopped_and_a_living_one_is_not(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", CRASHING, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    while "started" not in owner.stdout.readline():
        pass
    (left,) = children_of(tmp_path)
    with Supervisor(tmp_path, print) as parts:
        with pytest.raises(ProcessError, match="runs already"):
            parts.start(part(tmp_path))
        os.kill(owner.pid, signal.SIGKILL)
        owner.communicate()
        assert left.is_running(), "kill -9 of the owner leaves its child"
        parts.start(part(tmp_path))
        assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE
        assert len(children_of(tmp_path)) == 1
    assert children_of(tmp_path) == []


def test_a_taken_port_gives_the_next_one() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) != port
