"""A whole tuning: examples → weights → comparison → registry."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from tator_ml.vlm.registry import ADAPTER, WHOLE, QwenEntry, QwenRegistry, RunMetadata, qwen_registry
from tator_sdk.qwen_request import QwenTraining
from tator_sdk.settings import Settings
from training.checkpoints import checkpoints_in
from training.job import Job, run_job
from training.qwen.base import MOST_ASPECT
from training.qwen.compare import compare
from training.qwen.train import Tuned, train
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
    entry = registered(registry, job)
    if entry is None:  # else an attempt before this one was killed after its last effect but one
        entry = _tuned(request, settings, registry, job, begun)
    activated = activate_where_good(registry, entry, request.activation, request.project, job)
    clear(job, [checkpoints_in(job.folder), *job.folder.glob("best-*"), *job.folder.glob(".best-*")])
    return result_of(entry, activated, "map50", time.monotonic() - begun)


def _tuned(request: QwenTraining, settings: Settings, registry: QwenRegistry, job: Job, begun: float) -> QwenEntry:
    with open_samples(request, settings, job, most_aspect=MOST_ASPECT) as samples:
        tuned = train(request, samples, settings, job)
        release_memory()  # for the comparison
        about = metadata_of(request, tuned, samples)
        active = active_or_base(registry, request.project, job)
        decision = compared(lambda: compare(_candidate(tuned, about), active, samples, request, settings, job), job)
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
        examples = seen(samples)

    def write(folder: Path) -> None:
        shutil.copytree(tuned.folder / tuned.kind, folder / tuned.kind)
        (folder / tuned.kind / "README.md").unlink(missing_ok=True)  # peft's empty form

    return registry.add(about, metrics, write, examples)


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
        id="new",
        model_id=str(tuned.folder / WHOLE) if whole else tuned.base.model_id,
        adapter=None if whole else tuned.folder / ADAPTER,
        style=tuned.style,
        classes=about.classes,
        metadata=about,
    )
