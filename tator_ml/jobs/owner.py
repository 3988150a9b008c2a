"""The process that has a job, known well enough to say later whether it is still there."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tator_ml.running.processes import same_process, started


@dataclass(frozen=True)
class Owner:
    """One process.

    Attributes:
        host: name of its machine, for people.
        machine: of where its number means something: one boot of one machine, one container.
        pid: its number, which is given out again after its end.
        started: when it began, as :func:`tator_ml.running.processes.started` says; with its number, that process and
            no other.
    """

    host: str
    machine: str
    pid: int
    started: float

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        pid = os.getpid()
        return cls(socket.gethostname(), machine(), pid, started(psutil.Process(pid)))

    @classmethod
    def from_json(cls, text: str) -> Owner:
        """The inverse of :meth:`to_json`."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """As text, for Redis."""
        return json.dumps(asdict(self))

    def gone(self) -> bool | None:
        """Whether the process is over; None where that cannot be seen from here."""
        if self.machine != machine():
            return None
        return same_process(self.pid, self.started) is None


def machine() -> str:
    """Name of where process numbers of this process mean something."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115  # not a path
    except OSError:  # not Linux
        return socket.gethostname()
