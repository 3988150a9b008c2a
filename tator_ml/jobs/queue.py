"""What people and pages do with jobs: start, cancel, start again."""

from __future__ import annotations

import json
from typing import Any

from tator_ml.jobs import lifecycle
from tator_ml.jobs.connection import reached
from tator_ml.jobs.order import Order
from tator_ml.jobs.owner import Owner
from tator_ml.jobs.records import JobError, JobRecord, JobRecords
from tator_sdk.settings import Settings

KINDS = {
    "clip": "training.clip.job.run",
    "export": "training.exporting.run",
    "import": "training.importing.run",
    "polygons": "training.segmentation.build.run",
    "prelabel": "training.prelabel.job.run",
    "preview": "training.preview.run",
    "quality": "training.quality.run",
    "qwen": "training.qwen.job.run",
    "register": "training.registering.run",
    "relabel": "training.relabel.run",
    "sam3": "training.sam3.job.run",
    "tweak": "training.tweak.job.run",
    "undo": "training.undo.run",
    "warm": "training.warm.run",
}
"""What a worker calls for each kind, with the job's id and its request."""

DEFAULT_TIMEOUT_SECONDS = 6 * 3600


def start(
    settings: Settings,
    kind: str,
    request: dict[str, Any],
    *,
    project: int | None = None,
    title: str,
    unique: str | None = None,
    timeout_seconds: int = DEFAULT_TIMEOUT_SECONDS,
    function: str | None = None,
) -> JobRecord:
    """Put a job in the queue.

    Args:
        settings: of this installation.
        kind: one of :data:`KINDS`.
        request: JSON, handed to the job; what it has as ``device`` decides which workers take it.
        project: of Label Studio, if it belongs to one.
        title: for people.
        unique: a name such as ``clip:3``, under which at most one job runs and one waits. Where one waits already,
            it is returned and nothing is new. Where one runs, it is returned, and the newest request is kept: one
            job with it starts when that one ends.
        timeout_seconds: the longest one attempt may take.
        function: dotted name of what to call, for a kind that is not in :data:`KINDS`.

    Returns:
        The new job or the one that was there.

    Raises:
        JobError: there is no such kind, the request is no JSON, or Redis does not answer.
    """
    called = function or KINDS.get(kind)
    if called is None:
        raise JobError(f"There is no kind of job {kind}; take one of {', '.join(sorted(KINDS))}.")
    try:
        request = json.loads(json.dumps(request))
    except (TypeError, ValueError) as error:
        raise JobError(f"The request of a {kind} job must be JSON: {error}.") from error
    device = request.get("device")
    order = Order(kind, called, request, title, project, unique, timeout_seconds, str(device) if device else None)
    with reached(settings) as connection:
        return lifecycle.place(connection, order)


def cancel(settings: Settings, job_id: str) -> JobRecord:
    """End a job: a queued one at once, a running one at its next check. One that has ended stays as it is.

    Returns:
        The job as it stands now.

    Raises:
        JobError: there is no such job, or Redis does not answer.
    """
    with reached(settings) as connection:
        lifecycle.ask_to_cancel(connection, job_id)
        fields = lifecycle.read_fields(connection, job_id)
        if fields["status"] == "running" and Owner.from_json(fields["owner"]).gone():
            # its process died and no worker has noticed; nobody would look at the request to stop
            lifecycle.recover(connection, job_id, fields["delivery"], "cancelled; its process was gone")
        return JobRecords(connection).get(job_id)


def retry(settings: Settings, job_id: str) -> JobRecord:
    """Start a job like one that has ended: same kind, request, project, title and unique name.

    Returns:
        The new job, or where it has a unique name and another of that name is open, that one.

    Raises:
        JobError: there is no such job, it has not ended, or Redis does not answer.
    """
    with reached(settings) as connection:
        if not JobRecords(connection).get(job_id).over:
            raise JobError(f"Job {job_id} has not ended; `tator jobs cancel {job_id}` ends it.")
        return lifecycle.place(connection, Order.of(lifecycle.read_fields(connection, job_id)))
