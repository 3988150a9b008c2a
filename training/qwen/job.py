"""A whole tuning: examples → weights → comparison → registry."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from tator_ml.vlm.registry import (
    ADAPTER,
    WHOLE,
    QwenEntry,
    QwenRegistry,
    QwenRegistryError,
    RunMetadata,
    qwen_registry,
)
from tator_sdk.errors import TatorError
from tator_sdk.requests import QwenTraining
from tator_sdk.settings import Settings
from training.job import Job, run_job
from training.qwen.base import MOST_ASPECT
from training.qwen.compare import compare, release_memory
from training.qwen.gate import Decision
from training.qwen.train import Tuned, checkpoints_in, train
from training.samples import Samples
from training.source import open_samples


def run(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """Do the :class:`QwenTraining` of a request, given as JSON values; what a worker calls."""
    return run_job(job_id, lambda job, settings: tune(QwenTraining.model_validate(request), settings, job))


def tune(request: QwenTraining, settings: Settings, job: Job) -> dict[str, Any]:
    """Tune a model, register it, and activate it where the gate lets it.

    Args:
        request: what to learn from and how.
        settings: of this installation.
        job: takes progress, log and curve; may stop the work.

    Returns:
        Id, whether it is active, why, and the main figures, as JSON values.

    Raises:
        TatorError: in a sentence.
    """
    begun = time.monotonic()
    registry = qwen_registry(settings)
    entry = next((one for one in registry.entries() if (one.metrics or {}).get("job") == job.id), None)
    if entry is None:  # else an attempt before this one was killed after its last effect but one
        entry = _tuned(request, settings, registry, job, begun)
    activated = _activate(registry, entry, request, job)
    _clear(job.folder)
    gate = dict((entry.metrics or {}).get("gate") or {})
    scores = [(gate.get(name) or {}).get("map50") for name in ("candidate", "active")]
    return {
        "id": entry.id,
        "activated": activated,
        "reason": gate.get("reason"),
        "map50": scores[0],
        "active_map50": scores[1],
        "classes": len(entry.classes),
        "seconds": round(time.monotonic() - begun, 2),
    }


def _tuned(request: QwenTraining, settings: Settings, registry: QwenRegistry, job: Job, begun: float) -> QwenEntry:
    with open_samples(request, settings, job, most_aspect=MOST_ASPECT) as samples:
        tuned = train(request, samples, settings, job)
        release_memory()  # for the comparison
        about = metadata_of(request, tuned, samples)
        active = _active(registry, request.project, job)
        decision = _compared(_candidate(tuned, about), active, samples, request, settings, job)
        job.check()  # nothing is registered for a job that was cancelled, or that another attempt has
        metrics = {
            "job": job.id,
            "gate": {**decision.as_json(), "active_id": active.id},
            "best": dict(tuned.best),
            "evaluations": [dict(one) for one in tuned.evaluations],
            "steps": tuned.steps,
            "planned_steps": tuned.planned,
            "trained_weights": tuned.trained,
            "weights": tuned.weights,
            "pictures": {"train": len(samples.train), "held_out": len(samples.held_out)},
            "notes": list(samples.notes),
            "seconds": round(time.monotonic() - begun, 2),
        }
        seen = [{"image": one.image, "held_out": False} for one in samples.train]
        seen += [{"image": one.image, "held_out": True} for one in samples.held_out]

    def write(folder: Path) -> None:
        shutil.copytree(tuned.folder / tuned.kind, folder / tuned.kind)
        (folder / tuned.kind / "README.md").unlink(missing_ok=True)  # peft's empty form

    return registry.add(about, metrics, write, seen)


def _active(registry: QwenRegistry, project: int | None, job: Job) -> QwenEntry:
    try:
        return registry.active(project)
    except QwenRegistryError as error:
        job.log(f"compared with the base, since the active model cannot be had: {error}")
        return registry.base()


def _compared(
    candidate: QwenEntry, active: QwenEntry, samples: Samples, request: QwenTraining, settings: Settings, job: Job
) -> Decision:
    """The gate's decision; what cannot be compared is kept, and hours of training are not lost to it."""
    try:
        return compare(candidate, active, samples, request, settings, job)
    except TatorError as error:
        job.log(f"not compared: {error}")
        return Decision(False, f"it could not be compared: {str(error).rstrip('.')}", None, None, None, None, 0)


def metadata_of(request: QwenTraining, tuned: Tuned, samples: Samples) -> RunMetadata:
    """What ``metadata.json`` will say; the registry fills in id and date."""
    label = request.label or f"{', '.join(samples.classes[:3])}{' …' if len(samples.classes) > 3 else ''}"
    best = tuned.best
    said = f"{request.method} on {len(samples.train)} pictures of {samples.source}, {len(samples.classes)} classes"
    return RunMetadata(
        id="",
        label=label,
        system_prompt=tuned.style.system_prompt,
        system_prompt_noise=request.noise,
        dataset_context=tuned.style.extra_context,
        classes=samples.classes,
        model_id=tuned.base.model_id,
        use_qlora=request.method == "qlora",
        max_image_dim=request.max_image_dim,
        max_detections_per_sample=request.max_detections,
        created_at="",
        latest_checkpoint=WHOLE if tuned.kind == WHOLE else ADAPTER,
        source_dataset=samples.source,
        method=request.method,
        image_type=tuned.style.image_type,
        template=tuned.style.template,
        description=request.description or f"{said}; step {best['step']} of {tuned.planned}.",
        project=request.project,
        trained_by=request.model_dump(mode="json"),
    )


def _candidate(tuned: Tuned, about: RunMetadata) -> QwenEntry:
    """The new model as it will be once it is registered."""
    whole = tuned.kind == WHOLE
    return QwenEntry(
        "new",
        str(tuned.folder / WHOLE) if whole else tuned.base.model_id,
        None if whole else tuned.folder / ADAPTER,
        tuned.style,
        about.classes,
        metadata=about,
    )


def _activate(registry: QwenRegistry, entry: QwenEntry, request: QwenTraining, job: Job) -> bool:
    gate = dict((entry.metrics or {}).get("gate") or {})
    good = bool(gate.get("activate"))
    wanted = request.activation == "always" or (request.activation == "auto" and good)
    if request.project is None or not wanted:
        job.log(f"{entry.id} is not active: {gate.get('reason')}")
        return False
    job.check()
    registry.activate(request.project, entry.id, "gate" if good else "asked for", gate)
    job.log(f"{entry.id} is active: {gate.get('reason')}")
    return True


def _clear(folder: Path) -> None:
    """Give back the disk of checkpoints, which are not needed any more."""
    for path in (checkpoints_in(folder), *folder.glob("best-*"), *folder.glob(".best-*")):
        shutil.rmtree(path, ignore_errors=True)
