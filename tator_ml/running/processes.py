"""Processes that Tator starts: ready before they are used, found again after a crash, none left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import psutil

from tator_ml.running.lease import this_host
from tator_sdk.errors import TatorError
from tator_sdk.files import write_durably

LOOPBACK = "127.0.0.1"
STARTTIME_AFTER_NAME = 19
"""Place of ``starttime`` in /proc/PID/stat, counted after the program's name, which may hold spaces."""
LOG_BYTES = 8 * 2**20
"""A part's log that is longer is put aside at its start, in the place of the one before."""
TAIL_BYTES = 64 * 2**10
Report = Callable[[str], None]
"""Takes one short sentence about what is happening."""


class ProcessError(TatorError):
    """A process did not start or stay; the message says where to look."""


def free_port(preferred: int, host: str = LOOPBACK) -> int:
    """Return ``preferred``, or the next port above it on which nothing listens, or any free one."""
    for port in (*range(preferred, min(preferred + 100, 65536)), 0):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((host, port))
                return int(probe.getsockname()[1])
    raise ProcessError(f"No free port on {host}.")


@contextlib.contextmanager
def termination_as_exit() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that ``with`` blocks inside clean up. Main thread only."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_group(leader: int, patience: float = 5.0) -> None:
    """End the process group of ``leader``: SIGTERM, after ``patience`` seconds SIGKILL. None of it is left.

    Processes that ended and that their parent has not collected yet count as ended.
    """
    try:
        _signal_group(leader, signal.SIGTERM)
        _wait_for_end(leader, patience)
    finally:  # an impatient second Ctrl-C lands here
        if _members(leader):
            _signal_group(leader, signal.SIGKILL)
            _wait_for_end(leader, 10.0)


def _signal_group(leader: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


def _wait_for_end(leader: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _members(leader) and time.monotonic() < deadline:
        time.sleep(0.05)


def _members(leader: int) -> list[int]:
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            if os.getpgid(process.pid) == leader and not ended(process):
                members.append(process.pid)
    return members


def ended(process: psutil.Process) -> bool:
    """Whether a process is over, though its parent may not have collected it yet."""
    # The first thread turns zombie before the others are gone, and they still hold the port.
    return bool(process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1)


def started(process: psutil.Process) -> float:
    """When a process began: seconds since the start of the system, where they can be had, else since the epoch.

    Since the epoch it would be another moment after each correction of the clock, and the process another one.
    """
    try:
        told = Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()  # see proc(5)
        return int(told[STARTTIME_AFTER_NAME]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return float(process.create_time())


def same_process(pid: int, began: float) -> psutil.Process | None:
    """The process ``pid`` if it is the one that began then, as `started` says; numbers are given out again."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if abs(started(process) - began) < 2.0 and not ended(process):
            return process
    return None


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    write_durably(path, text.encode(), private=True)


class PidFile:
    """Remembers a process and its owner, so that what a crash left behind is found and stopped."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, pid: int) -> None:
        """Remember a process that this one owns."""
        process, owner = psutil.Process(pid), psutil.Process()
        entry = {
            "pid": process.pid,
            "started": started(process),
            "owner": owner.pid,
            "owner_started": started(owner),
            "host": this_host(),
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_private(self._path, json.dumps(entry))

    def clear(self) -> None:
        """Forget it."""
        self._path.unlink(missing_ok=True)

    def stop_leftover(self, name: str) -> None:
        """Stop a process that its owner left behind.

        Raises:
            ProcessError: its owner is alive, so it is in use.
        """
        try:
            entry = json.loads(self._path.read_text())
            here = entry["host"] == this_host()  # else before the machine's last start, or another one's of this home
            process = same_process(entry["pid"], entry["started"]) if here else None
            owner = same_process(entry["owner"], entry["owner_started"]) if here else None
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            process = owner = None
        if process is not None:
            if owner is not None and owner.pid != os.getpid():
                raise ProcessError(f"{name} runs already, started by process {owner.pid}: stop that one first.")
            stop_group(process.pid)
        self.clear()


@dataclass(frozen=True)
class Part:
    """One process of a running Tator.

    Attributes:
        name: short, e.g. ``engine``.
        argv: command line.
        ready: whether it can be used; asked until it says yes.
        patience_seconds: how long it may take to become ready.
        restart: start it again when it ends by itself.
    """

    name: str
    argv: Sequence[str]
    ready: Callable[[], bool]
    patience_seconds: float = 60.0
    restart: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)


class Supervisor:
    """Starts parts in order, starts again what ends, and stops all of them in reverse order."""

    def __init__(self, home: Path, report: Report) -> None:
        self._home = home
        self._report = report
        self._running: dict[str, tuple[Part, subprocess.Popen[bytes]]] = {}
        self._ends: dict[str, list[float]] = {}

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def log_path(self, name: str) -> Path:
        """Where a part's output goes."""
        return self._home / "logs" / f"{name}.log"

    def start(self, part: Part) -> None:
        """Start a part and wait until it is ready.

        Raises:
            ProcessError: it ended, or was not ready in time; the message carries the end of its log.
        """
        self.clear_leftover(part.name)
        process = self._launch(part)
        begun = told = time.monotonic()
        while not part.ready():
            now = time.monotonic()
            if process.poll() is not None:
                raise ProcessError(f"Tator's {part.name} ended while starting:\n{self.log_tail(part.name)}")
            if now - begun > part.patience_seconds:
                raise ProcessError(
                    f"Tator's {part.name} was not ready after {part.patience_seconds:.0f} s:\n"
                    f"{self.log_tail(part.name)}"
                )
            if now - told > 2:
                told = now
                self._report(f"{part.name} is starting: {now - begun:.0f} s")
            time.sleep(0.05)
        self._report(f"{part.name} is ready after {time.monotonic() - begun:.1f} s")

    def clear_leftover(self, name: str) -> None:
        """Stop what a crashed owner left behind under this name.

        Raises:
            ProcessError: its owner is alive, so it is in use.
        """
        self._pid_file(name).stop_leftover(f"Tator's {name}")

    def watch(self, pause_seconds: float = 0.5) -> None:
        """Start parts again that end; returns only by an exception such as KeyboardInterrupt.

        Raises:
            ProcessError: a part ends again and again.
        """
        while True:
            self.revive()
            time.sleep(pause_seconds)

    def revive(self) -> None:
        """Start parts again that have ended since the last look."""
        for name, (part, process) in list(self._running.items()):
            code = process.poll()
            if code is None:
                continue
            now = time.monotonic()
            recent = [moment for moment in self._ends.get(name, []) if now - moment < 60] + [now]
            self._ends[name] = recent
            if not part.restart or len(recent) > 5:
                raise ProcessError(f"Tator's {name} keeps ending (code {code}):\n{self.log_tail(name)}")
            self._report(f"{name} ended (code {code}) and is started again")
            self._launch(part)

    def stop(self) -> None:
        """Stop everything; safe to call twice."""
        while self._running:
            name, (_, process) = self._running.popitem()
            stop_group(process.pid)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            self._pid_file(name).clear()

    def log_tail(self, name: str, lines: int = 12) -> str:
        """The last lines of a part's log."""
        try:
            with self.log_path(name).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
                return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def _pid_file(self, name: str) -> PidFile:
        return PidFile(self._home / "run" / f"{name}.json")

    def _launch(self, part: Part) -> subprocess.Popen[bytes]:
        path = self.log_path(part.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > LOG_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))
        with path.open("ab") as log:
            process = subprocess.Popen(
                list(part.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **part.environment},
            )
        self._running[part.name] = (part, process)
        self._pid_file(part.name).write(process.pid)
        return process
