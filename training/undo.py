"""The job ``undo``: what an import or a job did to a project, taken back by the code that the commands use."""

from __future__ import annotations

import re
from typing import Any

from tator_ml.jobs.connection import connect_patiently
from tator_ml.jobs.records import JobError, JobRecords
from tator_sdk.data_requests import Undo
from tator_sdk.errors import TatorError
from tator_sdk.import_undo import ImportUndo
from tator_sdk.settings import Settings
from training.job import Job, run_job
from training.pushed import delete_predictions, predictions_of
from training.tweak.apply import CHANGES_FILE, record_of
from training.tweak.undo import restore

SHOWN = 200


def run(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """Do an :class:`Undo` request, given as JSON values, as a worker's job."""
    return run_job(job_id, lambda job, settings: undo(Undo.model_validate(request), settings, job))


def undo(request: Undo, settings: Settings, job: Job) -> dict[str, Any]:
    """Take it back, but for what people have changed since; safe to repeat and to break off.

    Args:
        request: what is taken back.
        settings: of this installation.
        job: takes progress and log; may stop the work.

    Returns:
        What was, or would be, deleted and restored, and what was left as it is, as JSON values.

    Raises:
        TatorError: it has not ended, belongs to another project, or Label Studio does not answer.
    """
    about = {"of": request.of, "project": request.project, "dry_run": request.dry_run}
    if request.of.startswith("import-"):
        return {**about, **_undo_import(request, settings, job)}
    _refuse_while_open(request, settings)
    changed, _ = record_of(settings.home / "jobs" / request.of / CHANGES_FILE)
    if changed:
        return {**about, **_restore(request, settings, job, len(changed))}
    job.progress(0, 0, "looking for predictions")
    numbers = predictions_of(settings, request.project, request.of)
    if numbers and not request.dry_run:
        delete_predictions(settings, numbers, lambda done, total: _step(job, done, total, "deleting predictions"))
    job.log(f"{len(numbers)} predictions of {request.of} {'would be' if request.dry_run else ''} deleted")
    return {**about, "predictions": len(numbers)}


def _step(job: Job, done: int, total: int, what: str) -> None:
    job.progress(done, total, what)
    job.check()


def _undo_import(request: Undo, settings: Settings, job: Job) -> dict[str, Any]:
    undo = ImportUndo(settings, request.of)
    if undo.record.project != request.project:
        raise TatorError(f"{request.of} went into another project than {request.project}.")
    job.progress(0, 0, "looking through the tasks")
    found = undo.find()
    if not (request.dry_run or found.nothing):
        found = undo.delete(found, lambda done, total: _step(job, done, total, "deleting"))
    kept = sorted(set(found.kept))
    job.log(f"{len(found.tasks)} tasks, {len(found.annotations)} annotations, {found.predictions} predictions")
    for task in kept[:SHOWN]:
        job.log(f"task {task} stays: people have worked on it since")
    return {
        "tasks": len(found.tasks),
        "annotations": len(found.annotations),
        "predictions": found.predictions,
        "kept": kept[:SHOWN],
        "kept_count": len(kept),
    }


def _restore(request: Undo, settings: Settings, job: Job, count: int) -> dict[str, Any]:
    if request.dry_run:
        return {"restored": count, "there": 0, "skipped": []}
    done = restore(
        settings,
        settings.home / "jobs" / request.of,
        lambda at, total: _step(job, at, total, "restoring annotations"),
    )
    for one in done.skipped:
        job.log(f"annotation {one['annotation']} of task {one['task']} is left as it is: {one['why']}")
    return {"restored": done.restored, "there": done.there, "skipped": done.skipped[:SHOWN]}


def _refuse_while_open(request: Undo, settings: Settings) -> None:
    """Let nothing be taken back that is still being done.

    Raises:
        TatorError: it is, or it was done to another project.
    """
    named = re.match(r"(?:tweak|relabel|prelabel)-(\d+)-", request.of)
    if named and int(named[1]) != request.project:
        raise TatorError(f"{request.of} worked on another project than {request.project}.")
    with connect_patiently(settings) as connection:
        try:
            record = JobRecords(connection).get(request.of)
        except JobError:  # a build of polygons, a job in the foreground, or one that is off the history
            return
    if not record.over:
        raise TatorError(f"{request.of} is {record.status}; cancel it first, then take it back.")
