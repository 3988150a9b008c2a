"""The job ``import``: a data set in files into a project, as the verb ``import`` does it."""

from __future__ import annotations

from typing import Any

from tator_sdk.formats.dataset import BadLine
from tator_sdk.importing import Importer
from tator_sdk.requests import DataImport
from tator_sdk.settings import Settings
from training.job import Job, run_job

MOST_LINES = 1000


def run(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """Do the import of a :class:`DataImport` request, given as JSON values, as a worker's job."""
    return run_job(job_id, lambda job, settings: import_dataset(DataImport.model_validate(request), settings, job))


def import_dataset(request: DataImport, settings: Settings, job: Job) -> dict[str, Any]:
    """Import it; broken off at any moment, the same request completes it, and its undo takes back what is there.

    Args:
        request: what is imported, and how.
        settings: of this installation.
        job: takes progress, and each line that is left out; may stop the work between two pictures.

    Returns:
        What was imported, as JSON values; ``id`` is what takes it back.

    Raises:
        TatorError: in a sentence.
    """
    left_out = 0

    def bad(line: BadLine) -> None:
        nonlocal left_out
        left_out += 1
        if left_out <= MOST_LINES:
            job.log(f"left out: {line}")

    importer = Importer(request, settings, job.progress, bad)
    job.check()
    report = importer.run()
    for note in report.notes:
        job.log(note)
    job.log(f"{report.created} pictures imported as {report.id}, {report.there} were there")
    return report.as_json()
