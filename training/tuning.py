"""What every tuning does once its model is trained: compare it, register it once, activate it where it may."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from tator_ml.runs import Entry, RunError, RunRegistry
from tator_sdk.errors import TatorError
from training.gate import Decision
from training.job import Job
from training.samples import Samples
from training.source import KEPT

E = TypeVar("E", bound="Entry[Any]")


def registered(registry: RunRegistry[Any, E], job: Job) -> E | None:
    """The run of a job whose attempt was killed after it was registered; None where there is none yet."""
    return next((one for one in registry.entries() if (one.metrics or {}).get("job") == job.id), None)


def active_or_base(registry: RunRegistry[Any, E], project: int | None, job: Job) -> E:
    """What the new model is compared with."""
    try:
        return registry.active(project)
    except RunError as error:
        job.log(f"compared with the base, since the active model cannot be had: {error}")
        return registry.base()


def compared(compare: Callable[[], Decision], job: Job) -> Decision:
    """The gate's decision; what cannot be compared is kept, and hours of training are not lost to it."""
    try:
        return compare()
    except TatorError as error:
        job.log(f"not compared: {error}")
        return Decision(False, f"it could not be compared: {str(error).rstrip('.')}", None, None, None, None, 0)


def seen(samples: Samples) -> list[dict[str, Any]]:
    """The pictures of a training, as a run keeps them: so that none of them is compared on later."""
    return [
        {"image": one.image, "held_out": held_out}
        for part, held_out in ((samples.train, False), (samples.held_out, True))
        for one in part
    ]


def activate_where_good(
    registry: RunRegistry[Any, E], entry: E, activation: str, project: int | None, job: Job
) -> bool:
    """Make a run the project's if the gate lets it, or whatever it says where that was asked for.

    Returns:
        Whether it is active now.

    Raises:
        JobCancelled, JobLost: see :meth:`Job.check`.
        RunError: its weights are damaged.
    """
    gate = dict((entry.metrics or {}).get("gate") or {})
    good = bool(gate.get("activate"))
    wanted = activation == "always" or (activation == "auto" and good)
    if project is None or not wanted:
        job.log(f"{entry.id} is not active: {gate.get('reason')}")
        return False
    job.check()
    if registry.chosen(project) != entry.id:  # else an attempt before this one was killed right after it
        registry.activate(project, entry.id, "gate" if good else "asked for", gate)
    job.log(f"{entry.id} is active: {gate.get('reason')}")
    return True


def result_of(entry: Entry[Any], activated: bool, figure: str, seconds: float) -> dict[str, Any]:
    """What a tuning's job gives, as JSON values; ``figure`` names the gate's figure that decides."""
    gate = dict((entry.metrics or {}).get("gate") or {})
    scores: Mapping[str, Any] = {name: gate.get(name) or {} for name in ("candidate", "active")}
    return {
        "id": entry.id,
        "activated": activated,
        "reason": gate.get("reason"),
        figure: scores["candidate"].get(figure),
        f"active_{figure}": scores["active"].get(figure),
        "classes": len(entry.classes),
        "seconds": round(seconds, 2),
    }


def clear(job: Job, paths: Iterable[Path]) -> None:
    """Give back the disk of folders that are not needed any more, and forget which examples a job began with."""
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
    (job.folder / KEPT).unlink(missing_ok=True)


def release_memory() -> None:
    """Give back what models that nobody holds any more have left on the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
