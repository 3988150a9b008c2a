"""Training from pages: what can be learned from, every setting, the look before, and who may."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from flask import g

from tator_ml.jobs import JobRecord, JobRecords
from tator_ml.jobs.order import Ending
from tator_ml.launch import JOB_KINDS
from tator_ml.learning.stores import example_store, head_registry
from tator_ml.web.access import Visitor
from tator_sdk.annotations import LabelledBox
from tator_sdk.datasets import DatasetRegistry
from tator_sdk.settings import Settings
from tests.cli.conftest import head, report
from training.job import LocalJob
from training.preview import preview

from .conftest import Site

TRAININGS = {one.kind: one.model for one in JOB_KINDS if one.kind in ("clip", "qwen", "sam3")}


@pytest.fixture
def as_member(site: Site) -> Callable[[int], None]:
    def become(project: int) -> None:
        def swap() -> None:
            g.visitor = Visitor("ann@example.com", frozenset({project}))

        site.client.application.before_request(swap)

    return become


def labelled(settings: Settings, project: int, *labels: str) -> None:
    with closing(example_store(settings)) as examples:
        boxes = [LabelledBox(f"r{place}", "image", label, (0, 0, 5, 5), (9, 9)) for place, label in enumerate(labels)]
        examples.put(project, 1, 1, "now", boxes, {("image", 0): "http://x/1.png"})


def newest(site: Site) -> list[JobRecord]:
    return JobRecords(site.connection).list()


@pytest.mark.parametrize("kind", TRAININGS)
def test_every_setting_is_in_the_form_with_its_help(site: Site, kind: str) -> None:
    page = site.page(f"/tator/train?kind={kind}")
    asked_apart = {"project", "dataset", "images_path"}
    for name, field in TRAININGS[kind].model_fields.items():
        if name not in asked_apart:
            assert f'name="{name}"' in page, name
            assert f'id="field-{name}-help"' in page and (field.description or "")[:20].replace("'", "&#39;") in page
    assert "Here: starter." in page or kind != "clip"
    site.page("/tator/train?kind=toaster", 404)


def test_a_project_is_offered_with_what_is_known_of_it(site: Site, settings: Settings) -> None:
    labelled(settings, 3, "Car", "Car", "Bus")
    page = site.page("/tator/train?project=3")
    assert "project 3: 3 objects of 2 classes" in page and 'value="project:3" selected' in page and "Car 2" in page


def test_starting_makes_the_job_with_the_settings_that_were_typed(site: Site) -> None:
    form = {"source": "project:3", "solver": "saga", "max_iter": "7", "sync": "no", "seed": ""}
    labelled(site.settings, 3, "Car")
    answer = site.client.post("/tator/train/clip", data=form)
    (job,) = newest(site)
    assert answer.status_code == 302
    assert (job.kind, job.project, job.request["solver"], job.request["max_iter"]) == ("clip", 3, "saga", 7)
    assert job.request["sync"] is False and job.request["seed"] == 42
    assert f"{job.title}</a>" in site.page("/tator/train") and "No worker runs" in site.page("/tator/train")
    refused = site.client.post("/tator/train/clip", data={**form, "seed": "5"})
    assert refused.status_code == 409 and "with other settings waits already" in refused.text
    assert 'value="5"' in refused.text, "what was typed is kept"


def test_what_cannot_be_used_is_shown_beside_its_field(site: Site) -> None:
    labelled(site.settings, 3, "Car")
    answer = site.client.post("/tator/train/sam3", data={"source": "project:3", "batch": "0", "phrases": "car"})
    assert answer.status_code == 422 and "This must be greater than or equal to 1." in answer.text
    answer = site.client.post("/tator/train/sam3", data={"source": "project:3", "phrases": "car"})
    assert "is no CLASS=PHRASE" in answer.text
    answer = site.client.post("/tator/train/qwen", data={"source": ""})
    assert "Choose what is to be learned from." in answer.text and not newest(site)


def test_a_data_set_of_the_registry(site: Site, settings: Settings, yolo: Path) -> None:
    record = DatasetRegistry(settings.home).register(yolo, source={"project": 3})
    assert f'value="set:{record.id}"' in site.page("/tator/train")
    site.client.post("/tator/train/clip", data={"source": f"set:{record.id}"})
    site.client.post("/tator/train/qwen", data={"source": f"set:{record.id}"})
    qwen, clip = newest(site)
    assert clip.request["images_path"] == str(yolo) and clip.project is None
    assert qwen.request["dataset"] == str(yolo)


def test_a_look_counts_and_trains_nothing(site: Site, yolo: Path, tmp_path: Path) -> None:
    form = {"source": "path", "source_path": str(yolo), "look": "yes", "min_per_class": "3"}
    answer = site.client.post("/tator/train/clip", data=form)
    (job,) = newest(site)
    assert job.kind == "preview" and answer.location.endswith(f"/tator/train/look/{job.id}")
    assert "Waiting for a worker" in site.page(answer.location)
    request = TRAININGS["clip"].model_validate(job.request["request"])
    found = preview(request, site.settings, LocalJob(site.settings, "look", lambda *_: None))
    assert found["problem"] == "" and found["pictures"] > found["held_out"] > 0
    assert {row["class"] for row in found["classes"]} == {"disc", "star", "cross", "heart"}
    assert all(row["boxes"] == row["learned"] + row["held out"] for row in found["classes"])
    site.ended(job, Ending("done", found))
    page = site.page(answer.location)
    assert "disc" in page and f"<strong>{found['held_out']}</strong> held out" in page
    assert site.client.post(f"{answer.location}/start").status_code == 302
    assert newest(site)[0].kind == "clip" and newest(site)[0].request["min_per_class"] == 3
    assert f'value="{yolo}"' in site.page(f"/tator/train?again={job.id}")
    other = site.job()
    site.page(f"/tator/train/look/{other.id}", 404)


def test_a_look_of_another_version_of_tator_is_a_sentence(site: Site) -> None:
    job = site.job("preview", 3, request={"kind": "clip", "request": {"project": 3, "no_longer_there": 1}})
    answer = site.client.post(f"/tator/train/look/{job.id}/start", follow_redirects=True)
    assert answer.status_code == 200 and "another version of Tator" in answer.text


def test_a_look_says_why_a_training_would_refuse(site: Site, yolo: Path) -> None:
    request = TRAININGS["clip"](images_path=yolo, min_per_class=5000)
    found = preview(request, site.settings, LocalJob(site.settings, "look", lambda *_: None))
    assert "at least two classes" in found["problem"] and all(row["learned"] == 0 for row in found["classes"])


def test_a_version_is_trained_again_with_its_settings(site: Site, settings: Settings) -> None:
    settings_of = {"project": 3, "solver": "saga", "max_iter": 77, "device": None}
    entry = head_registry(settings).add(head("Car", "Bus"), 3, report("Car", "Bus") | {"request": settings_of})
    page = site.page(f"/tator/train?kind=clip&like={entry.version}")
    assert 'value="77"' in page and '<option value="saga" selected>' in page and "<strong>2 changed</strong>" in page


def test_members_train_their_projects_and_name_no_paths(
    site: Site,
    as_member: Callable[[int], None],
    yolo: Path,
) -> None:
    registry = DatasetRegistry(site.settings.home)
    theirs = registry.register(yolo, source={"project": 2})
    entry = head_registry(site.settings).add(head("Car", "Bus"), 2, report("Car", "Bus"))
    as_member(1)
    page = site.page("/tator/train")
    assert 'value="project:1"' in page and "project:2" not in page and theirs.id not in page
    assert 'name="source_path"' not in page and 'name="labels_path"' not in page and 'name="device"' not in page
    for source in ("project:2", f"set:{theirs.id}", "path"):
        form = {"source": source, "source_path": str(yolo)}
        assert site.client.post("/tator/train/clip", data=form).status_code == 422
    sent = {"source": "project:1", "labels_path": "/etc", "device": "cuda:7", "project": "2", "images_path": "/etc"}
    site.client.post("/tator/train/clip", data=sent)
    (job,) = newest(site)
    assert (job.project, job.request["labels_path"], job.request["device"]) == (1, None, None)
    assert site.client.post("/tator/train/qwen", data={"source": "project:1", "base": "/etc"}).status_code == 422
    assert site.client.post("/tator/train/clip", data={"source": "project:1", "encoder": "/etc"}).status_code == 422
    site.page(f"/tator/train?like={entry.version}", 403)
    site.page(f"/tator/train?again={site.job(project=2).id}", 403)
    assert "project 2" not in site.page("/tator/train")
