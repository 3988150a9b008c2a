"""Requests become jobs in one way, whoever starts them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tator_ml.jobs import KINDS, lifecycle, start
from tator_ml.jobs.order import Ending
from tator_ml.jobs.owner import Owner
from tator_ml.launch import JOB_KINDS, LaunchError, is_for, launch, open_jobs, request_of
from tator_sdk.qwen_request import QwenTraining
from tator_sdk.requests import (
    Export,
    HeadTraining,
    JobRequest,
    Prelabel,
    Relabel,
    SegmentationBuild,
    Tweak,
    WarmUp,
)
from tator_sdk.sam3_request import Sam3Training

from .conftest import Jobs


def test_every_manner_has_a_kind_that_a_worker_knows() -> None:
    assert {one.kind for one in JOB_KINDS} <= set(KINDS)
    assert len({one.kind for one in JOB_KINDS}) == len({one.model for one in JOB_KINDS}) == len(JOB_KINDS)


@pytest.mark.parametrize(
    ("request_", "kind", "title", "hours"),
    [
        (HeadTraining(project=3), "clip", "class head of project 3", 6),
        (HeadTraining(images_path=Path("/data/cars")), "clip", "class head on cars", 6),
        (QwenTraining(project=3), "qwen", "tune the Qwen of project 3", 168),
        (Sam3Training(dataset="cars"), "sam3", "tune the SAM 3 on cars", 168),
        (Relabel(project=3, dry_run=True), "relabel", "classes of project 3, dry run", 24),
        (Tweak(project=3), "tweak", "boxes of project 3", 24),
        (Prelabel(project=3, prompt="car"), "prelabel", "'car' in project 3", 24),
        (WarmUp(project=3), "warm", "pictures of project 3", 24),
        (SegmentationBuild(project=3), "polygons", "polygons of project 3", 72),
    ],
)
def test_a_request_becomes_its_job(jobs: Jobs, request_: JobRequest, kind: str, title: str, hours: int) -> None:
    (record,) = launch(jobs.settings, request_)
    assert (record.kind, record.title, record.project) == (kind, title, getattr(request_, "project", None))
    assert lifecycle.read_fields(jobs.connection, record.id)["timeout_seconds"] == str(hours * 3600)
    assert is_for(record, request_) and request_of(record) == request_
    assert launch(jobs.settings, request_) == [record], "the same again is the same job"


def test_what_waits_with_other_settings_is_told(jobs: Jobs) -> None:
    (first,) = launch(jobs.settings, HeadTraining(project=3))
    with pytest.raises(LaunchError, match=f"{first.id} with other settings waits already"):
        launch(jobs.settings, HeadTraining(project=3, seed=1))
    assert launch(jobs.settings, HeadTraining(project=3, seed=1), any_that_waits=True)[0].id == first.id
    assert launch(jobs.settings, HeadTraining(project=4))[0].id != first.id


def test_behind_one_that_runs_the_newest_request_follows(jobs: Jobs) -> None:
    (first,) = launch(jobs.settings, HeadTraining(project=3))
    attempt = lifecycle.begin(jobs.connection, first.id, Owner.current())
    assert attempt is not None
    (same,) = launch(jobs.settings, HeadTraining(project=3, seed=1))
    assert same.id == first.id and not is_for(same, HeadTraining(project=3, seed=1))
    lifecycle.finish(jobs.connection, first.id, attempt, Ending("done", {}))
    (follower,) = (one for one in jobs.records.list() if not one.over)
    assert is_for(follower, HeadTraining(project=3, seed=1))


def test_a_tuning_is_refused_beside_another_of_the_same_source(jobs: Jobs) -> None:
    (first,) = launch(jobs.settings, QwenTraining(project=3))
    with pytest.raises(LaunchError, match=f"{first.id} with other settings is not over"):
        launch(jobs.settings, QwenTraining(project=3, rank=4))
    launch(jobs.settings, QwenTraining(dataset="cars", rank=4))
    launch(jobs.settings, Sam3Training(project=3))


def test_a_tuning_is_found_behind_many_newer_jobs(jobs: Jobs) -> None:
    (first,) = launch(jobs.settings, QwenTraining(project=3))
    for _ in range(60):
        start(jobs.settings, "warm", {}, project=3, title="a newer one")
    assert len(open_jobs(jobs.settings)) == 61 and open_jobs(jobs.settings, 4) == []
    with pytest.raises(LaunchError, match=f"{first.id} with other settings is not over"):
        launch(jobs.settings, QwenTraining(project=3, rank=4))


def test_shards_are_jobs_of_one_request(jobs: Jobs) -> None:
    build = SegmentationBuild(project=3, shards=3)
    records = launch(jobs.settings, build)
    assert [one.title for one in records] == [f"polygons of project 3, part {part} of 3" for part in (1, 2, 3)]
    assert all(is_for(one, build) and request_of(one) == build for one in records)
    assert len(launch(jobs.settings, WarmUp(project=3), shards=2)) == 2


def test_what_no_job_does_and_what_another_version_asked(jobs: Jobs) -> None:
    with pytest.raises(LaunchError, match="No job does"):
        launch(jobs.settings, Export(project=3, output=Path("/x")))
    (record,) = launch(jobs.settings, Relabel(project=3))
    with pytest.raises(LaunchError, match="another version"):
        request_of(replace(record, request={"project": 3, "thoroughly": True}))
    with pytest.raises(LaunchError, match="other settings"):
        request_of(replace(record, kind="ping"))


def test_a_folder_means_the_same_to_a_worker(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cars").mkdir()
    monkeypatch.chdir(tmp_path)
    (record,) = launch(jobs.settings, Sam3Training(dataset="cars", base="facebook/sam3"))
    assert record.request["dataset"] == str(tmp_path / "cars") and record.request["base"] == "facebook/sam3"
