"""Keeps one checkpoint of a training as a run, without the optimizer's state, whatever becomes of the training."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tator_ml.sam3.registry import MODEL, Sam3Entry, Sam3Registry, sam3_registry
from tator_sdk.errors import TatorError
from tator_sdk.sam3_request import Sam3Training
from tator_sdk.settings import Settings
from training.checkpoints import checkpoints_in, step_of
from training.sam3.begun import Begun, trainings
from training.sam3.checkpoints import LEARNED, STATE, read_state
from training.sam3.weights import assemble


class PromoteError(TatorError):
    """There is nothing to promote; the message says what there is."""


@dataclass(frozen=True)
class Kept:
    """Weights that a training has left.

    Attributes:
        step: of the optimiser.
        best: whether they were the best on held-out pictures, rather than those of a checkpoint.
        learned: file of them.
        state: file of a checkpoint's state; None of the best.
    """

    step: int
    best: bool
    learned: Path
    state: Path | None


def kept_in(folder: Path) -> list[Kept]:
    """What a job's folder has, by step, the best of a step before its checkpoint."""
    found = [Kept(step_of(path.parent), True, path, None) for path in folder.glob(f"best-*/{LEARNED}")]
    for path in checkpoints_in(folder).glob(f"checkpoint-*/{LEARNED}"):
        if (path.parent / STATE).exists():
            found.append(Kept(step_of(path.parent), False, path, path.parent / STATE))
    return sorted(found, key=lambda one: (one.step, not one.best))


def promote(settings: Settings, name: str, step: int | None = None) -> Sam3Entry:
    """Register a checkpoint of a training that runs, was cancelled or killed, as a run of its own.

    Args:
        settings: of this installation.
        name: id of the job, or its only beginning.
        step: of the checkpoint. Default: the best weights, else the newest checkpoint.

    Returns:
        The run; it is active nowhere yet.

    Raises:
        TatorError: there is no such training or step, or its base is gone.
    """
    registry = sam3_registry(settings)
    job = _job(settings, registry, name)
    folder = trainings(settings)[job]
    chosen = _chosen(kept_in(folder), job, step)
    try:
        begun = Begun.read(folder)
    except (OSError, ValueError, TypeError):
        raise PromoteError(f"What {job} began with cannot be read ({folder}); it cannot be promoted.") from None
    with tempfile.TemporaryDirectory(dir=folder, prefix=".promote-") as safe:
        # a training that runs may remove its checkpoint meanwhile; what is linked stays
        learned = _link(chosen.learned, Path(safe) / LEARNED)
        evaluations = _evaluations(folder, chosen)
        metrics: dict[str, Any] = {"promoted_from": job, "step": chosen.step, "evaluations": evaluations}
        metrics["gate"] = {
            "activate": False,
            "reason": "it was promoted by hand and not compared with the active model",
        }
        if (best := _of_step(evaluations, chosen.step)) is not None:
            metrics["best"] = best
        resolution = Sam3Training.model_validate(begun.request).resolution

        def write(place: Path) -> None:
            assemble(Path(begun.base), learned, place / MODEL, resolution)

        step_said = f"step {chosen.step} of {job}, promoted"
        return registry.add(begun.metadata(step_said), metrics, write, begun.examples)


def _job(settings: Settings, registry: Sam3Registry, name: str) -> str:
    known = trainings(settings)
    if name in known:
        return name
    found = [job for job in known if name and job.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise PromoteError(f"'{name}' may be {', '.join(found)}; write one out.")
    if any(entry.id.startswith(name) for entry in registry.entries()[1:]) and name:
        raise PromoteError(
            f"{name} is a run already, which has no optimizer state; `tator models sam3 activate {name} --project N` "
            "makes it active."
        )
    raise PromoteError(f"There is no training '{name}' with checkpoints; `tator models sam3 storage` shows them all.")


def _chosen(kept: Sequence[Kept], job: str, step: int | None) -> Kept:
    if not kept:
        raise PromoteError(
            f"{job} has no checkpoint; one that ended well has its run in `tator models sam3 list`, and one that has "
            "just begun writes its first soon."
        )
    if step is None:
        return next((one for one in reversed(kept) if one.best), kept[-1])
    fitting = [one for one in kept if one.step == step]
    if not fitting:
        steps = ", ".join(f"{one.step}{' (best)' if one.best else ''}" for one in kept)
        raise PromoteError(f"{job} has no checkpoint of step {step}; it has {steps}.")
    return fitting[0]


def _evaluations(folder: Path, chosen: Kept) -> list[Mapping[str, Any]]:
    """Those up to the step, of the newest checkpoint that has any; best weights have no state of their own."""
    places = [chosen.state] if chosen.state else [one.state for one in reversed(kept_in(folder)) if one.state]
    for place in places:
        try:
            found = read_state(place.parent).evaluations
        except (OSError, ValueError, KeyError):
            continue
        return [one for one in found if one["step"] <= chosen.step]
    return []


def _of_step(evaluations: Sequence[Mapping[str, Any]], step: int) -> Mapping[str, Any] | None:
    return next((one for one in evaluations if one["step"] == step), None)


def _link(path: Path, target: Path) -> Path:
    try:
        os.link(path, target)
    except FileNotFoundError:
        raise PromoteError(f"{path.parent.name} was removed meanwhile; promote another one.") from None
    except OSError:  # a file system without links
        shutil.copy(path, target)
    return target
