"""The queue of label errors: what is found, in which order it is pushed, and that it is pushed once."""

from __future__ import annotations

import json

import httpx
import pytest

from tator_ml.learning.stores import head_registry
from tator_sdk import push as sdk
from tator_sdk.errors import TatorError
from tator_sdk.requests import Relabel
from tator_sdk.settings import Settings
from tator_sdk.studio import StudioError
from tests.relabel.conftest import CLASSES, PROJECT, FakeStudio, ReadsPlaces, head, region
from training import relabel as module
from training.job import JobCancelled, LocalJob
from training.relabel import relabel

REQUEST = Relabel(project=PROJECT)


def doubtful(studio: FakeStudio, *sureness: int) -> list[int]:
    """One task for each: a heart that is labelled as a star."""
    return [studio.annotate([region("a", "Star", "Heart", one)]) for one in sureness]


def run(settings: Settings, job: LocalJob, request: Relabel = REQUEST) -> dict:
    return relabel(request, settings, job, ReadsPlaces())


def test_the_most_doubtful_come_first_with_the_head_s_class(
    studio: FakeStudio, settings: Settings, job: LocalJob, version: str
) -> None:
    right = studio.annotate([region("a", "Star", "Star", 9), region("b", "Moon", "Moon", 9)])
    mild, strong = doubtful(studio, 3, 14)
    both = studio.annotate([region("a", "Star", "Moon", 8), region("b", "Moon", "Heart", 5)])
    report = run(settings, job)

    pushed = [one for request in studio.requests for one in request]
    assert [one["task"] for one in pushed] == [strong, both, mild] and right not in pushed
    scores = [one["score"] for one in pushed]
    assert scores == sorted(scores) and scores[0] < 0.05
    assert {one["model_version"] for one in pushed} == {f"{version}/{job.id}"}
    (offered,) = pushed[0]["result"]
    assert offered["id"] == "a" and offered["value"]["rectanglelabels"] == ["Heart"]
    assert offered["value"]["x"] == studio.annotated[strong - 1].annotations[0]["result"][0]["value"]["x"]
    assert offered["score"] > 0.5
    assert pushed[1]["score"] == min(one["given"] for one in report["doubtful"] if one["task"] == both)

    assert (report["tasks"], report["boxes"], report["disagreements"], report["pushed"]) == (4, 6, 4, 3)
    assert report["pairs"][0] == {"from": "Star", "to": "Heart", "count": 2}
    first = report["doubtful"][0]
    assert (first["task"], first["region"], first["from"], first["to"]) == (strong, "a", "Star", "Heart")
    assert json.loads((job.folder / "report.json").read_text()) == report
    json.dumps(report)


def test_only_some_are_offered(studio: FakeStudio, settings: Settings, job: LocalJob, version: str) -> None:
    tasks = doubtful(studio, 3, 14, 9)
    report = run(settings, job, Relabel(project=PROJECT, limit=2))
    assert [one.task for one in studio.held] == [tasks[1], tasks[2]]
    assert (report["offered"], report["doubtful_tasks"]) == (2, 3)
    again = run(settings, LocalJob(settings, "relabel-7-sure"), Relabel(project=PROJECT, least_probability=0.95))
    assert 0 < again["doubtful_tasks"] < 3


def test_a_dry_run_pushes_nothing(studio: FakeStudio, settings: Settings, job: LocalJob, version: str) -> None:
    doubtful(studio, 3, 14)
    report = run(settings, job, Relabel(project=PROJECT, dry_run=True))
    assert not studio.requests and (report["offered"], report["pushed"]) == (2, 0)
    assert len(report["doubtful"]) == 2


class Interrupted(LocalJob):
    """Is lost right before its second push."""

    calls = 0

    def check(self) -> None:
        self.calls += 1
        if self.calls > 2:  # one before looking what is there, one for each request
            raise JobCancelled


def test_a_job_that_is_taken_up_again_pushes_each_once(
    studio: FakeStudio, settings: Settings, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk, "PUSHED_TOGETHER", 2)
    tasks = doubtful(studio, 3, 14, 9, 5, 11)
    with pytest.raises(JobCancelled):
        run(settings, Interrupted(settings, "relabel-7-abcd"))
    before = [one.id for one in studio.held]
    assert [one.task for one in studio.held] == [tasks[1], tasks[4]]

    registry = head_registry(settings)  # meanwhile another head became active: the job keeps its own
    registry.activate(PROJECT, registry.add(head(0.99), PROJECT, {}).version, "person")
    for expected in ((3, 2), (0, 5)):
        report = run(settings, LocalJob(settings, "relabel-7-abcd"))
        assert (report["pushed"], report["already_there"]) == expected
    assert sorted(one.task for one in studio.held) == tasks
    assert [one.id for one in studio.held][:2] == before
    assert {one.model_version for one in studio.held} == {f"{version}/relabel-7-abcd"}


def test_without_its_notes_a_job_still_pushes_each_once(
    studio: FakeStudio, settings: Settings, job: LocalJob, version: str
) -> None:
    doubtful(studio, 3, 14)
    run(settings, job)
    (job.folder / "found.json").unlink()
    assert run(settings, job)["pushed"] == 0 and len(studio.held) == 2


def test_a_push_without_an_answer_is_not_repeated_blindly(
    studio: FakeStudio, settings: Settings, job: LocalJob, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk, "WAITS_SECONDS", (0.0,))
    doubtful(studio, 3, 14)
    studio.fails = [httpx.ReadTimeout("went through all the same")]
    report = run(settings, job)
    assert len(studio.held) == 2 and report["pushed"] == 2 and len(studio.requests) == 1

    studio.fails = [httpx.ReadTimeout("once"), httpx.ReadTimeout("twice"), httpx.ReadTimeout("three times")]
    studio.held.clear()
    studio.forgets = {1, 2}
    with pytest.raises(StudioError, match="did not answer in time"):
        run(settings, job)


def test_a_request_that_arrives_late_leaves_no_double(
    studio: FakeStudio, settings: Settings, job: LocalJob, version: str
) -> None:
    (task,) = doubtful(studio, 9)
    run(settings, job)
    (first,) = [one.id for one in studio.held]
    other = studio.hold(task=task, model_version="somebody else's")
    studio.hold(task=task, model_version=f"{version}/{job.id}")
    run(settings, job)
    assert [one.id for one in studio.held] == [first, other]


def test_what_label_studio_drops_or_refuses_is_told(
    studio: FakeStudio, settings: Settings, job: LocalJob, version: str
) -> None:
    tasks = doubtful(studio, 3, 14, 9, 5)
    studio.forgets, studio.refuses = {tasks[0]}, {tasks[2]}
    report = run(settings, job)
    assert [one.task for one in studio.held] == [tasks[1], tasks[3]]
    assert (report["pushed"], report["dropped"]) == (2, 2)
    assert [note for note in report["notes"] if f"task {tasks[2]}" in note]


def test_a_region_that_label_studio_would_drop_does_not_take_the_task_with_it(
    studio: FakeStudio, settings: Settings, job: LocalJob, version: str
) -> None:
    studio.annotate([region("a", "Star", "Heart", 9), region("b", "Star", "Heart", 14, width=101)])
    report = run(settings, job)
    assert [item["id"] for item in studio.held[0].result] == ["a"]
    assert report["disagreements"] == 1 and "out of bounds" in report["notes"][0]


def test_a_class_that_the_tag_does_not_have_is_no_correction(
    studio: FakeStudio, settings: Settings, job: LocalJob, version: str
) -> None:
    studio.annotate([region("a", "Star", "Heart", 14, tag="sky"), region("b", "Comet", "Heart", 14)])
    report = run(settings, job)
    assert (report["boxes"], report["unknown"], report["disagreements"], report["pushed"]) == (1, 1, 0, 0)
    assert not studio.requests


def test_regions_of_every_form_are_offered(studio: FakeStudio, settings: Settings, job: LocalJob, version: str) -> None:
    labels = "".join(f'<Label value="{name}"/>' for name in CLASSES)
    studio.config = (
        '<View><Image name="image" value="$image"/><Rectangle name="draw" toName="image"/>'
        f'<Labels name="kind" toName="image">{labels}</Labels>'
        f'<PolygonLabels name="outline" toName="image">{labels}</PolygonLabels></View>'
    )
    plain = region("a", "Star", "Heart", 14, tag="draw")
    geometry = {name: share for name, share in plain["value"].items() if name != "rectanglelabels"}
    plain |= {"type": "rectangle", "value": geometry}
    name = {**plain, "from_name": "kind", "type": "labels", "value": {**geometry, "labels": ["Star"]}}
    corners = [[x / 4, y] for x, y in ((210, 10), (240, 10), (240, 60), (210, 60))]
    outline = {
        **plain, "id": "b", "from_name": "outline", "type": "polygonlabels",
        "value": {"points": corners, "closed": True, "polygonlabels": ["Star"]},
    }  # fmt: skip
    studio.annotate([plain, name, outline])
    report = run(settings, job)
    assert report["notes"] == [] and report["disagreements"] == 2
    said = {(one["id"], one["type"]): one["value"] for one in studio.held[0].result}
    assert said["a", "labels"]["labels"] == ["Heart"] and said["a", "rectangle"] == geometry
    assert said["b", "polygonlabels"] == {"points": corners, "closed": True, "polygonlabels": ["Moon"]}


def test_what_annotators_agree_on_counts_once(
    studio: FakeStudio, settings: Settings, job: LocalJob, version: str
) -> None:
    wrong = region("a", "Star", "Heart", 14)
    task = studio.annotate(
        [wrong, region("b", "Moon", "Moon", 9)],
        [{**wrong, "id": "c"}, region("a", "Star", "Moon", 9)],  # another object under an id that is taken
    )
    studio.annotated[0].annotations.append(
        {"id": 99, "was_cancelled": True, "result": [region("z", "Star", "Moon", 14)]}
    )
    report = run(settings, job)
    (offered,) = studio.held
    assert [item["id"] for item in offered.result] == ["a", "a-11"]
    assert (report["boxes"], report["disagreements"]) == (3, 2)
    assert {(one["annotation"], one["region"]) for one in report["doubtful"]} == {(10, "a"), (11, "a")}
    assert report["doubtful"][0]["task"] == task


def test_nothing_to_correct(studio: FakeStudio, settings: Settings, job: LocalJob, version: str) -> None:
    studio.annotate([region("a", "Star", "Star", 9)])
    report = run(settings, job)
    assert (report["boxes"], report["disagreements"], report["pairs"], report["doubtful"]) == (1, 0, [], [])
    assert not studio.requests
    studio.annotated.clear()
    assert run(settings, LocalJob(settings, "relabel-7-none"))["boxes"] == 0


def test_a_picture_that_cannot_be_had_takes_only_its_own_boxes(
    studio: FakeStudio, settings: Settings, job: LocalJob, version: str
) -> None:
    lost = studio.annotate([region("a", "Star", "Heart", 9)], data={"image": "http://elsewhere/x.png"})
    (task,) = doubtful(studio, 9)
    report = run(settings, job)
    assert [one.task for one in studio.held] == [task] and report["unreadable"] == 1
    assert f"Task {lost}" in report["notes"][0] and "elsewhere" in report["notes"][0]


def test_a_project_without_a_head_is_a_sentence(studio: FakeStudio, settings: Settings, job: LocalJob) -> None:
    doubtful(studio, 9)
    with pytest.raises(TatorError, match="tator train clip --project 7"):
        run(settings, job)


def test_a_head_of_another_encoder_is_a_sentence(
    studio: FakeStudio, settings: Settings, job: LocalJob, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubtful(studio, 9)
    monkeypatch.setattr(ReadsPlaces, "version", "places-2")
    with pytest.raises(TatorError, match="fitted on places-1"):
        run(settings, job)


def test_a_large_project_is_read_in_chunks(
    studio: FakeStudio, settings: Settings, job: LocalJob, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_TASKS", 3)
    seen = []
    judge = module.Judge.__call__
    monkeypatch.setattr(module.Judge, "__call__", lambda self, chunk: (seen.append(len(chunk)), judge(self, chunk)))
    tasks = doubtful(studio, *range(3, 11))
    assert run(settings, job)["pushed"] == 8
    assert seen == [3, 3, 2] and sorted(one.task for one in studio.held) == tasks
