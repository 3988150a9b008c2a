"""Clicks have the lease of a device: whoever else works on it stands aside at its next step.

The engine writes down until when clicks hold the device, in a small file under home that every process of the same
host maps into its memory. So asking costs a job a microsecond a step, and Redis need not be there. A device belongs
to one host, and so does its lease: of a home that several hosts share, the files of other hosts (other boots) are
not looked at.
"""

from __future__ import annotations

import hashlib
import mmap
import re
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LAYOUT = struct.Struct("<d")
CLICK_SECONDS = 10.0  # an engine that was killed during a click holds no job up for longer
LINGER_SECONDS = 0.1  # clicks come in bursts
MOST_ASIDE_SECONDS = 2.0  # however many click, every step comes to its turn
LOOK_SECONDS = 5.0  # how often a job looks for engines that are new
POLL_SECONDS = 0.01
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def this_host() -> str:
    """Digits that stand for this host since its last start; monotonic clocks agree only there."""
    try:
        name = BOOT_ID.read_text()
    except OSError:  # not Linux
        name = str(uuid.getnode())
    return hashlib.sha256(name.encode()).hexdigest()[:12]


class ClickLease:
    """The engine's side: held while clicks are answered, and a moment longer."""

    def __init__(self, folder: Path, device: str) -> None:
        """Make the file.

        Args:
            folder: that jobs look into.
            device: its name.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"clicks-{this_host()}-{re.sub(r'[^a-zA-Z0-9]+', '_', device)}.lease"
        with path.open("a+b") as file:
            file.truncate(LAYOUT.size)
            self._map = mmap.mmap(file.fileno(), LAYOUT.size)
        self._lock = threading.Lock()
        self._clicks = 0
        self._until = 0.0
        self._last = -float("inf")
        self._write(0.0)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lease for one click; several overlap."""
        with self._lock:
            self._clicks += 1
            self._write(time.monotonic() + CLICK_SECONDS)
        try:
            yield
        finally:
            with self._lock:
                self._clicks -= 1
                self._last = time.monotonic()
                self._write(self._last + (CLICK_SECONDS if self._clicks else LINGER_SECONDS))

    def stand_aside(self) -> None:
        """For other work of this process: wait while clicks hold the lease, as a job does."""
        _wait(lambda: self._until)

    def watched(self, seconds: float) -> bool:
        """Whether anybody clicked within this time."""
        return bool(self._clicks) or time.monotonic() - self._last < seconds

    def _write(self, until: float) -> None:
        self._until = until
        LAYOUT.pack_into(self._map, 0, until)


class Bystander:
    """A job's side: waits at each step while clicks hold a device of this host."""

    def __init__(self, folder: Path) -> None:
        """Prepare; ``folder`` is that of the engines' leases."""
        self._folder = folder
        self._maps: dict[Path, mmap.mmap] = {}
        self._looked = -float("inf")

    def stand_aside(self) -> None:
        """Wait until no click is being answered, at most ``MOST_ASIDE_SECONDS``."""
        now = time.monotonic()
        if now - self._looked > LOOK_SECONDS:
            self._look(now)
        _wait(self._until)

    def _until(self) -> float:
        return max((float(LAYOUT.unpack_from(one, 0)[0]) for one in self._maps.values()), default=0.0)

    def _look(self, now: float) -> None:
        self._looked = now
        for path in self._folder.glob(f"clicks-{this_host()}-*.lease"):
            if path in self._maps:
                continue
            with path.open("rb") as file:
                try:
                    self._maps[path] = mmap.mmap(file.fileno(), LAYOUT.size, access=mmap.ACCESS_READ)
                except ValueError:  # just made, and empty yet
                    continue


def _wait(held_until: Callable[[], float]) -> None:
    begun = now = time.monotonic()
    while now < min(held_until(), begun + MOST_ASIDE_SECONDS):
        time.sleep(POLL_SECONDS)
        now = time.monotonic()
