"""A job asked for once more, with some settings or its prompt changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from flask import Blueprint, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from tator_ml.jobs.records import JobRecord
from tator_ml.launch import request_of
from tator_ml.web.access import visitor
from tator_ml.web.dashboard.forms import Refused, RequestForm, read_request, request_form
from tator_ml.web.dashboard.jobs.one import seen_job
from tator_ml.web.dashboard.page import Dashboard
from tator_ml.web.dashboard.starting import start
from tator_sdk.requests import JobRequest

OF_THIS_MACHINE = {"dataset", "base", "path", "encoder", "model", "device"}
"""Fields that can name a path of the backend's machine, beside those whose type says so."""


def add(routes: Blueprint, dashboard: Dashboard) -> None:
    """Routes of the form."""
    settings = dashboard.settings

    def page(job: JobRecord, form: RequestForm) -> str:
        return render_template("dashboard/jobs/again.html", job=job, form=form)

    @routes.get("/jobs/<job_id>/again")
    def jobs_again(job_id: str) -> str:
        job = seen_job(settings, job_id)
        asked = request_of(job)
        kept = _kept(asked)
        form = request_form(type(asked), values=asked.model_dump(), leave_out=kept, settings=settings)
        return page(job, form)

    @routes.post("/jobs/<job_id>/again")
    def jobs_start_again(job_id: str) -> AnyResponse | tuple[str, int]:
        job = seen_job(settings, job_id)
        asked = request_of(job)
        kept = _kept(asked)
        try:
            wanted = read_request(type(asked), request.form, **kept)
        except Refused as error:
            form = request_form(
                type(asked), values=error.values, errors=error.errors, leave_out=kept, settings=settings
            )
            return page(job, form), 422
        return start(settings, wanted)


def _kept(asked: JobRequest) -> dict[str, Any]:
    """Fields that stay as they were: the project always, and paths of this machine for all but administrators."""
    kept = {"project"} & set(type(asked).model_fields)
    if not visitor().administrator:
        kept |= {
            name
            for name, field in type(asked).model_fields.items()
            if name in OF_THIS_MACHINE or Path in (field.annotation, *get_args(field.annotation))
        }
    return {name: getattr(asked, name) for name in kept}
