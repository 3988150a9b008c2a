"""From a form to its job: started, told about, and shown."""

from __future__ import annotations

from flask import flash, redirect, url_for
from werkzeug.wrappers import Response

from tator_ml.launch import is_for, launch
from tator_sdk.requests import JobRequest
from tator_sdk.settings import Settings


def start(settings: Settings, wanted: JobRequest, page: str = "jobs_one") -> Response:
    """Start what a request asks for, and go to the page of its job.

    Where another job of the name runs, it goes to that one's, and says that this one follows.

    Args:
        settings: of this installation.
        wanted: the request.
        page: endpoint that shows a job.

    Raises:
        LaunchError: a job with other settings stands in the way.
        JobError: Redis does not answer.
    """
    job = launch(settings, wanted)[0]
    if not is_for(job, wanted):
        flash(f"{job.id} runs with other settings; yours starts when it has ended.", "good")
    return redirect(url_for(f"dashboard.{page}", job_id=job.id))
