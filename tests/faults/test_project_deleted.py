"""A project is deleted in Label Studio while jobs of it run: each ends with a sentence, and the others go on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from demo.labelled import LabelledProject, labelled_project
from demo.stack import DemoStack
from tator_ml.jobs import JobRecord, JobRecords, connect_redis
from tator_ml.launch import launch
from tator_sdk.data_requests import DataExport
from tator_sdk.requests import HeadTraining, JobRequest, Prelabel, QualityReading, Relabel, Tweak, WarmUp
from tator_sdk.studio import StudioError, open_studio, sentences
from tests.jobs.conftest import until
from training.starter.scenes import CLASSES

pytestmark = [pytest.mark.studio, pytest.mark.faults, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def project(stack: DemoStack) -> Iterator[LabelledProject]:
    seeds = range(9_830_000, 9_830_014)
    names = [name.capitalize() for name in CLASSES]
    with (
        contextlib.suppress(StudioError),
        labelled_project(stack, "To be deleted", seeds, str.capitalize, names, annotated=True) as made,
    ):
        yield made


def test_jobs_of_a_project_that_is_deleted_end_with_a_sentence(
    stack: DemoStack, project: LabelledProject, tmp_path: Any
) -> None:
    number = project.number
    wanted: list[JobRequest] = [
        HeadTraining(project=number), Relabel(project=number), Tweak(project=number), WarmUp(project=number),
        QualityReading(project=number), Prelabel(project=number, prompt="circle"),
        DataExport(project=number, output=tmp_path / "out", form="yolo"),
    ]  # fmt: skip
    jobs = [job for request in wanted for job in launch(stack.settings, request)]

    with connect_redis(stack.settings) as connection:
        records = JobRecords(connection)
        until(lambda: records.get(jobs[0].id).status != "queued", 60)
        studio: Any = open_studio(stack.settings)
        with sentences(stack.studio.url):
            studio.projects.delete(number)
        ended: list[JobRecord] = [until(lambda one=one: _over(records, one.id), 120) for one in jobs]  # type: ignore[misc]
        logs = ["\n".join(records.log_lines(one.id)) for one in jobs]
    for one, log in zip(ended, logs, strict=True):
        assert one.attempt == 1 and "Traceback" not in log, (one.id, log)
        if one.status == "failed":
            assert one.error is not None and "\n" not in one.error and "unexpected" not in one.error, one
    gone = [one for one in ended if one.status == "failed" and "404" in (one.error or "")]
    assert len(gone) >= 4, [(one.kind, one.status, one.error) for one in ended]
    assert stack.parts.log_tail("worker")  # it lives; the next project's job is done
    (other,) = launch(stack.settings, QualityReading(project=stack.project))
    with connect_redis(stack.settings) as connection:
        assert until(lambda: _over(JobRecords(connection), other.id), 60).status == "done"


def _over(records: JobRecords, job_id: str) -> JobRecord | None:
    record = records.get(job_id)
    return record if record.over else None
