"""A whole tuning of a SAM 3: examples → weights → comparison → registry."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tator_ml.engine.loading import choose_device
from tator_ml.runs import BASE
from tator_ml.sam3.files import NAME, find_files
from tator_ml.sam3.registry import MODEL, Sam3Entry, Sam3Registry, sam3_registry
from tator_sdk.errors import TatorError
from tator_sdk.sam3_request import Sam3Training
from tator_sdk.settings import Settings
from training.checkpoints import checkpoints_in
from training.job import Job, run_job
from training.sam3.begun import FILE, Begun, alone
from training.sam3.compare import compare
from training.sam3.phrases import phrases_of
from training.sam3.train import Tuned, is_half, learns_masks, train
from training.sam3.weights import detector_config, read_config
from training.samples import Samples
from training.source import open_samples
from training.tuning import (
    activate_where_good,
    active_or_base,
    clear,
    compared,
    registered,
    release_memory,
    result_of,
    seen,
)

MOST_WAITING_SECONDS = 3600
ITS_OWN = {"sam3_checkpoint": None, "sam3_processor_id": None}
"""Settings under which a model is nothing but its folder."""


def run(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """Do the :class:`Sam3Training` of a request, given as JSON values; what a worker calls."""
    return run_job(job_id, lambda job, settings: tune(Sam3Training.model_validate(request), settings, job))


def tune(request: Sam3Training, settings: Settings, job: Job) -> dict[str, Any]:
    """Tune a model, register it, and activate it where the gate lets it.

    Under ``accelerate launch`` each process calls it; all of them train, and the first one does the rest.

    Args:
        request: what to learn from and how.
        settings: of this installation.
        job: takes progress, log and curve; may stop the work.

    Returns:
        Id, whether it is active, why, and the main figures, as JSON values; empty in a process that only helps.

    Raises:
        TatorError: in a sentence.
    """
    if int(os.environ.get("RANK", "0")):
        _help(request, settings, job)
        return {}
    begun = time.monotonic()
    registry = sam3_registry(settings)
    with alone(job.folder):
        entry = registered(registry, job)
        if entry is None:  # else an attempt before this one was killed after its last effect but one
            entry = _tuned(request, settings, registry, job, begun)
        activated = activate_where_good(registry, entry, request.activation, request.project, job)
        left = [job.folder / MODEL, *job.folder.glob("best-*"), *job.folder.glob(".*.part")]
        clear(job, [checkpoints_in(job.folder), *left])
    return result_of(entry, activated, "ap50", time.monotonic() - begun)


class NoBase(TatorError):
    """The installation's model cannot be tuned; the message says what can."""


@dataclass(frozen=True)
class Base:
    """The model that is tuned: what it is called, and the folder of its weights in the published layout."""

    name: str
    folder: Path


def base_of(request: Sam3Training, settings: Settings) -> Base:
    """The base of a request.

    Raises:
        TatorError: there is no such model, or it cannot be had.
    """
    entry = sam3_registry(settings).resolve(request.base)
    return Base(entry.id if entry.folder else entry.model_id, folder_of(entry, settings))


def folder_of(entry: Sam3Entry, settings: Settings) -> Path:
    """The folder of a model's weights and processor, fetched from the hub if need be.

    Raises:
        TatorError: it is nowhere, or incomplete.
    """
    if entry.folder is not None:
        return find_files(settings, entry.id).folder
    if entry.id != BASE:
        return find_files(settings.model_copy(update={**ITS_OWN, "sam3_model_id": entry.model_id}), NAME).folder
    files = find_files(settings, NAME)
    if files.checkpoint is not None or files.processor != files.folder:
        raise NoBase(
            "SAM3_CHECKPOINT_PATH or SAM3_PROCESSOR_ID puts the model together from several places, which cannot be "
            "tuned; put a whole model into one folder and name that: --base FOLDER."
        )
    return files.folder


def device_of(request: Sam3Training, settings: Settings) -> str:
    """The device to train on: the one asked for, else that of SAM 3, else the engine's."""
    return choose_device(
        request.device or (settings.sam3_device if settings.sam3_device != "auto" else settings.device)
    )


def _tuned(request: Sam3Training, settings: Settings, registry: Sam3Registry, job: Job, begun: float) -> Sam3Entry:
    device = device_of(request, settings)
    with open_samples(request, settings, job) as samples:
        base = base_of(request, settings)
        began = _began(request, samples, base)
        began.write(job.folder)
        tuned = train(request, samples, base.folder, job, device, job.folder / MODEL)
        release_memory()  # for the comparison
        active, half = active_or_base(registry, request.project, job), is_half(request, torch.device(device))
        decision = compared(
            lambda: compare(
                tuned.folder, folder_of(active, settings), active, samples, tuned.phrases, request, device, half, job
            ),
            job,
        )
        job.check()  # nothing is registered for a job that was cancelled, or that another attempt has
        metrics = {
            "job": job.id,
            "gate": {**decision.as_json(), "active_id": active.id},
            **_figures(tuned),
            "pictures": {"train": len(samples.train), "held_out": len(samples.held_out)},
            "notes": list(samples.notes),
            "seconds": round(time.monotonic() - begun, 2),
        }

    def write(folder: Path) -> None:
        shutil.copytree(tuned.folder, folder / MODEL)

    step = f"step {dict(tuned.best).get('step')} of {tuned.planned}"
    return registry.add(began.metadata(step), metrics, write, began.examples)


def _began(request: Sam3Training, samples: Samples, base: Base) -> Begun:
    config = detector_config(read_config(base.folder, request.resolution))
    return Begun(
        request=request.model_dump(mode="json"),
        base=str(base.folder.absolute()),
        base_id=base.name,
        classes=samples.classes,
        phrases=phrases_of(samples, request),
        source=samples.source,
        masks=learns_masks(request, samples),
        resolution=int(config.vision_config.image_size),
        examples=tuple(seen(samples)),
    )


def _figures(tuned: Tuned) -> dict[str, Any]:
    return {
        "best": dict(tuned.best),
        "evaluations": [dict(one) for one in tuned.evaluations],
        "steps": tuned.steps,
        "planned_steps": tuned.planned,
        "trained_weights": tuned.trained,
        "weights": tuned.weights,
    }


def _help(request: Sam3Training, settings: Settings, job: Job) -> None:
    """Train along with the first process, with the examples that it has read."""
    deadline = time.monotonic() + MOST_WAITING_SECONDS
    while not (job.folder / FILE).exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    with open_samples(request, settings, job) as samples:
        train(
            request, samples, base_of(request, settings).folder, job, device_of(request, settings), job.folder / MODEL
        )  # fmt: skip
