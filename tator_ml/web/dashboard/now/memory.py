"""Memory: how much of it is used, and the slider for what warm pictures may take."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from tator_ml.engine.messages import Status

MEGABYTE = 10**6
LEAST = 64  # megabytes: below, a single large picture would not fit
STEPS = 400
TYPICAL_PICTURE_BYTES = 40 * MEGABYTE
"""Of a photograph with its embedding, where none is warm that could be measured."""


@dataclass(frozen=True)
class Memory:
    """One kind of memory.

    Attributes:
        name: for people.
        used: bytes; ``total`` likewise, None where there is no bound to compare with.
        total: see ``used``.
    """

    name: str
    used: int
    total: int | None = None

    @property
    def share(self) -> float | None:
        """Used of the total, 0..1."""
        return min(1.0, self.used / self.total) if self.total else None


def memories(status: Status) -> list[Memory]:
    """What there is to tell: device, machine, processes, warm pictures and the embeddings on disk."""
    found = []
    if status.device_total_bytes is not None and status.device_free_bytes is not None:
        used = status.device_total_bytes - status.device_free_bytes
        found.append(Memory(f"Device {status.device}, all programs", used, status.device_total_bytes))
    if status.device_bytes is not None:
        found.append(Memory("Device, by the engine", status.device_bytes, status.device_total_bytes))
    if status.system_total_bytes and status.system_free_bytes is not None:
        used = status.system_total_bytes - status.system_free_bytes
        found.append(Memory("The engine's machine", used, status.system_total_bytes))
    if status.process_bytes:
        found.append(Memory("Engine process", status.process_bytes, status.system_total_bytes))
    found.append(Memory("Web process", int(psutil.Process().memory_info().rss)))
    if status.ready:
        found.append(Memory("Warm pictures", sum(one.nbytes for one in status.warm), status.budget_bytes))
        found.append(Memory("Embeddings on disk", status.store_bytes, status.store_budget_bytes or None))
    return found


@dataclass(frozen=True)
class Budget:
    """The slider's range in megabytes, and what one picture takes.

    Attributes:
        value: the budget now; ``least``, ``most`` and ``step`` are the slider's.
        picture_bytes: of one warm picture on average.
        measured: whether that is of pictures that are warm now.
    """

    value: int
    least: int
    most: int
    step: int
    picture_bytes: float
    measured: bool

    @classmethod
    def of(cls, status: Status) -> Budget:
        """The slider for an engine as it stands; half of its memory at most."""
        value = max(LEAST, round(status.budget_bytes / MEGABYTE))
        memory = (status.device_total_bytes or status.system_total_bytes or 0) // 2 // MEGABYTE
        most = max(memory, 2 * value, 1000)
        step = max(1, round(most / STEPS))
        sizes = [one.nbytes for one in status.warm]
        mean = sum(sizes) / len(sizes) if sizes else TYPICAL_PICTURE_BYTES
        return cls(value, LEAST, most, step, mean, bool(sizes))

    @property
    def pictures(self) -> int:
        """About how many pictures fit."""
        return max(1, int(self.value * MEGABYTE / self.picture_bytes))
