"""What a training would learn from, counted by a worker before anybody waits for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from tator_ml.launch import JOB_KINDS
from tator_sdk.errors import TatorError
from tator_sdk.qwen_request import QwenTraining
from tator_sdk.requests import HeadTraining
from tator_sdk.sam3_request import Sam3Training
from tator_sdk.settings import Settings
from training.job import Job, run_job
from training.samples import Samples

Row = dict[str, str | int]


def run(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """Count what a training's request names, given as ``kind`` and ``request``; what a worker calls."""

    def counted(job: Job, settings: Settings) -> dict[str, Any]:  # what is wrong with a request is the job's end, too
        model = next((one.model for one in JOB_KINDS if one.kind == request["kind"]), None)
        if model is None:
            kinds = ", ".join(one.kind for one in JOB_KINDS)
            raise TatorError(f"There is no training of the kind '{request['kind']}'; there are {kinds}.")
        return preview(model.model_validate(request["request"]), settings, job)

    return run_job(job_id, counted)


def preview(request: Any, settings: Settings, job: Job) -> dict[str, Any]:
    """Count, and train nothing.

    Returns:
        ``classes``: for each a row of cells by column; ``pictures`` and ``held_out``; ``notes``; ``problem``, why a
        training would refuse, or nothing; ``memory`` that it takes and whether that ``fits``, where it can be told.

    Raises:
        TatorError: it cannot be read.
    """
    if isinstance(request, HeadTraining):
        return _head(request, settings, job)
    if isinstance(request, QwenTraining):
        return _qwen(request, settings, job)
    assert isinstance(request, Sam3Training)  # noqa: S101
    return _sam3(request, settings, job)


def _head(request: HeadTraining, settings: Settings, job: Job) -> dict[str, Any]:
    from tator_ml.learning.stores import image_store
    from training.clip.dataset import read_dataset
    from training.clip.preview import preview as counted
    from training.clip.preview import too_few

    found = counted(read_dataset(request, settings, image_store(settings), job, trains=False), request)
    rows: list[Row] = []
    for name, count in found.boxes.items():
        left = name in found.too_few
        held = found.held_out[name]
        said = f"left out: fewer than {request.min_per_class}" if left else ""
        row: Row = {"class": name, "boxes": count, "learned": 0 if left else count - held, "held out": held}
        rows.append({**row, "note": said} if found.too_few else row)
    learned = found.pictures - found.pictures_held_out
    return _report(rows, learned, found.pictures_held_out, found.notes, too_few(found, request))


def _qwen(request: QwenTraining, settings: Settings, job: Job) -> dict[str, Any]:
    from training.qwen.base import MOST_ASPECT
    from training.source import open_samples

    with open_samples(request, settings, job, keep=False, most_aspect=MOST_ASPECT) as samples:
        return _of_samples(samples, {})


def _sam3(request: Sam3Training, settings: Settings, job: Job) -> dict[str, Any]:
    from training.sam3.preview import columns, memory
    from training.source import open_samples

    with open_samples(request, settings, job, keep=False) as samples:
        report = _of_samples(samples, columns(request, samples))
        try:
            said, fits = memory(request, settings, samples)
        except TatorError as error:
            said, fits = f"How much memory it takes cannot be told: {error}", True
    return {**report, "memory": said, "fits": fits}


def _of_samples(samples: Samples, more: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    held_out = Counter(one.label for sample in samples.held_out for one in sample.objects)
    learned = Counter(one.label for sample in samples.train for one in sample.objects)
    rows: list[Row] = [
        {
            "class": name,
            "objects": held_out[name] + learned[name],
            "held out": held_out[name],
            **{title: column.get(name, "") for title, column in more.items()},
        }
        for name in samples.classes
    ]
    return _report(rows, len(samples.train), len(samples.held_out), samples.notes, "")


def _report(rows: list[Row], train: int, held_out: int, notes: Any, problem: str) -> dict[str, Any]:
    return {"classes": rows, "pictures": train, "held_out": held_out, "notes": list(notes)[:50], "problem": problem}
