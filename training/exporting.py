"""The job ``export``: a project as a data set, as the verb ``export`` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tator_sdk.data_requests import DataExport
from tator_sdk.datasets import DatasetRegistry, marker_of
from tator_sdk.export import export
from tator_sdk.settings import Settings
from training.job import Job, run_job

MOST_PROBLEMS = 200


def run(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """Write the data set of a :class:`DataExport` request, given as JSON values, as a worker's job."""
    return run_job(job_id, lambda job, settings: export_project(DataExport.model_validate(request), settings, job))


def export_project(request: DataExport, settings: Settings, job: Job) -> dict[str, Any]:
    """Write it and enter it in the registry.

    Args:
        request: what to write, and where.
        settings: of this installation.
        job: takes progress; may stop the work, and then nothing of the data set is left.

    Returns:
        Pictures by split, objects by class, problems in sentences, and the registry's ``dataset``, as JSON values.

    Raises:
        TatorError: in a sentence.
    """
    written = _written_before(request, job)
    if written is not None:
        return _entered(written, request, settings, job)
    done = export(request.form, request, settings, job.progress, job.id)
    job.check()
    for problem in done.problems[:MOST_PROBLEMS]:
        job.log(problem)
    return {
        "project": request.project,
        "form": request.form,
        "dry_run": request.dry_run,
        "pictures": done.pictures,
        "classes": done.classes,
        "problems": list(done.problems[:MOST_PROBLEMS]),
        "problem_count": len(done.problems),
        "notes": list(done.written.notes) if done.written else [],
        "path": str(done.written.path) if done.written else None,
        "dataset": done.record.id if done.record else None,
    }


def _written_before(request: DataExport, job: Job) -> Path | None:
    """The whole data set that an earlier attempt of this job wrote, and was killed before it could enter it."""
    output = Path(request.output)
    for path in (output, output.with_name(output.name.removesuffix(".zip") + ".zip")):
        about = marker_of(path) or {}
        if (about.get("source") or {}).get("job") == job.id:
            return path
    return None


def _entered(path: Path, request: DataExport, settings: Settings, job: Job) -> dict[str, Any]:
    job.log(f"{path} was written by an earlier attempt; what it left out stands above")
    record = DatasetRegistry(settings.home).register(
        path, progress=lambda done, total: job.progress(done, total, "reading pictures")
    )
    return {
        "project": request.project, "form": request.form, "dry_run": False, "pictures": record.splits,
        "classes": record.classes, "problems": [], "problem_count": 0, "notes": [], "path": str(path),
        "dataset": record.id,
    }  # fmt: skip
