"""A queue for each device: jobs that ask for one go to the workers that have it, all others to any worker."""

from __future__ import annotations

import re
import sys
from pathlib import Path

QUEUE = "tator"
"""Of jobs that ask for no device."""
GPUS = Path("/proc/driver/nvidia/gpus")
_DEVICE = re.compile(r"cpu|mps|cuda(:\d+)?")


def queue_name(device: str | None) -> str:
    """The queue of jobs that ask for a device: ``cuda:1`` → ``tator:cuda:1``; for any other word the common one."""
    return f"{QUEUE}:{device}" if device and _DEVICE.fullmatch(device) else QUEUE


def devices_of(device: str, gpus: int | None = None) -> tuple[str, ...]:
    """Devices that a worker takes jobs for, the narrowest first.

    Args:
        device: the worker's own, as in the settings; ``auto`` for a worker that has all of its host.
        gpus: how many NVIDIA GPUs the host has; counted where None, without torch.
    """
    if device == "auto":
        count = _count_gpus() if gpus is None else gpus
        cuda = [*(f"cuda:{number}" for number in range(count)), *(["cuda"] if count else [])]
        return (*cuda, *(["mps"] if sys.platform == "darwin" else []), "cpu")
    if device.startswith("cuda"):
        # cuda alone means the first one to torch
        return (device, *(["cuda:0"] if device == "cuda" else ["cuda"]), "cpu")
    return tuple(dict.fromkeys([device, "cpu"]))


def queue_names(device: str) -> tuple[str, ...]:
    """Queues that a worker of a device takes jobs from, in order: those that few workers can serve first."""
    return (*map(queue_name, devices_of(device)), QUEUE)


def _count_gpus() -> int:
    try:
        return sum(1 for _ in GPUS.iterdir())
    except OSError:
        return 0
