"""Work on projects from the Data pages, and its results, without models and without Label Studio."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tator_ml.jobs import JobRecords
from tator_ml.jobs.order import Ending
from tator_ml.learning.stores import image_store
from tator_ml.web.dashboard.data.crops import SIDE, crop_around
from tator_sdk.datasets import DatasetRegistry

from .conftest import Site
from .sets import looked, newest, picture, see_only, send, yolo, zipped


@pytest.mark.parametrize("name", ["export", "polygons", "tweak", "relabel", "prelabel"])
def test_each_work_has_a_form_and_keeps_to_its_project(site: Site, name: str) -> None:
    page = site.page(f"/tator/data/{name}?project=1")
    assert "<form" in page and 'name="project"' in page
    see_only(site, 1)
    assert site.client.get(f"/tator/data/{name}?project=2").status_code == 403
    assert site.client.post(f"/tator/data/{name}", data={"project": 2, "do": "run"}).status_code in (400, 403)
    assert not JobRecords(site.connection).list()
    assert site.client.post(f"/tator/data/{name}", data={"project": 1, "do": "look"}).status_code == 302
    assert newest(site).project == 1


def test_paths_of_this_machine_are_not_asked_of_everybody(site: Site) -> None:
    see_only(site, 1)
    for name in ("export", "polygons"):
        assert 'name="output"' not in site.page(f"/tator/data/{name}")
        site.client.post(f"/tator/data/{name}", data={"project": 1, "output": "/etc/x", "force": "yes", "do": "run"})
        assert Path(newest(site).request["output"]).is_relative_to(site.settings.home)
        assert newest(site).request.get("force") in (None, False)


def test_members_choose_a_model_from_a_list(site: Site) -> None:
    given = {"project": 1, "prompt": "cars", "do": "look"}
    site.client.post("/tator/data/prelabel", data={**given, "model": "any/model-of-the-hub"})
    first = newest(site)
    assert first.request["model"] == "any/model-of-the-hub", "an administrator names what they like"
    site.ended(first, Ending("done", result={}))
    see_only(site, 1)
    assert '<option value="base"' in site.page("/tator/data/prelabel")
    for model in ("any/model-of-the-hub", "/etc", "qwen-p2-1-0123456"):
        answer = site.client.post("/tator/data/prelabel", data={**given, "model": model})
        assert answer.status_code == 400 and "Choose one of the list." in answer.text
    assert len(JobRecords(site.connection).list()) == 1
    site.client.post("/tator/data/prelabel", data={**given, "model": "base"})
    assert sorted(one.request["model"] for one in JobRecords(site.connection).list()) == [
        "any/model-of-the-hub",
        "base",
    ]


def test_boxes_are_never_moved_before_a_look(site: Site) -> None:
    given = {"project": 3, "in_place": "yes", "classes": "Car\nBus", "do": "run"}
    answer = site.client.post("/tator/data/tweak", data=given)
    look = newest(site)
    assert answer.location.endswith(look.id)
    assert look.request["dry_run"] is True and look.request["classes"] == ["Car", "Bus"]
    assert site.client.post(f"/tator/data/job/{look.id}/go").status_code == 400, "it has not been seen"
    site.ended(look, Ending("done", result=report_of_tweak(site, dry_run=True)))
    page = site.page(f"/tator/data/job/{look.id}")
    assert "Tighten them" in page and "Take it back" not in page and page.count('class="after"') == 1
    site.client.post(f"/tator/data/job/{look.id}/go")
    done = newest(site)
    assert done.request == {**look.request, "dry_run": False}
    site.ended(done, Ending("done", result=report_of_tweak(site)))
    assert "Take it back" in site.page(f"/tator/data/job/{done.id}")
    answer = site.client.post("/tator/data/undo", data={"of": done.id, "project": 3})
    undo = newest(site)
    assert answer.location.endswith(undo.id)
    assert (undo.kind, undo.project, undo.request["of"]) == ("undo", 3, done.id) and not undo.request["dry_run"]
    site.ended(
        undo,
        Ending(
            "done",
            result={
                "of": done.id,
                "project": 3,
                "dry_run": False,
                "restored": 4,
                "there": 0,
                "skipped": [{"annotation": 7, "task": 5, "why": "a person changed it since"}],
            },
        ),
    )
    page = site.page(f"/tator/data/job/{undo.id}")
    assert "4 annotations" in page and "a person changed it since" in page


def report_of_tweak(site: Site, dry_run: bool = False) -> dict[str, Any]:
    image = image_store(site.settings).put(picture(10, (200, 100)))
    numbers = {"boxes": 5, "moved": 1, "tight": 2, "kept": 2, "why": {"unstable mask": 2}, "offered": {}}
    numbers |= {"iou": 0.93, "iou_moved": 0.7, "iou_least": 0.7}
    box = {
        "task": 5,
        "annotation": 7,
        "region": "r1",
        "label": "<i>Car</i>",
        "iou": 0.7,
        "offered": None,
        "image": image,
    }
    return {
        **numbers, "project": 3, "job": "tweak-3-x", "model_version": "starter/x", "in_place": True, "dry_run": dry_run,
        "tasks": 4, "classes": {"<i>Car</i>": numbers}, "notes": [], "left": {}, "unreadable": 0, "changed": 1,
        "changed_before": 0, "skipped": [], "pushed": 0, "sheet": None, "project_shows": None,
        "moved_most": [{**box, "before": [10, 10, 60, 60], "after": [20, 20, 50, 50]}, {**box, "image": None}],
    }  # fmt: skip


def test_a_box_is_cut_out_of_its_picture(site: Site) -> None:
    job = site.job("tweak", 3, request={"project": 3})
    site.ended(job, Ending("done", result=report_of_tweak(site)))
    page = site.page(f"/tator/data/job/{job.id}")
    assert "&lt;i&gt;Car" in page and "<i>Car" not in page
    answer = site.client.get(f"/tator/data/job/{job.id}/box/0.jpg")
    assert Image.open(io.BytesIO(answer.data)).size == (SIDE, SIDE)
    assert site.client.get(f"/tator/data/job/{job.id}/box/1.jpg").status_code == 404
    assert site.client.get(f"/tator/data/job/{job.id}/box/9.jpg").status_code == 404
    see_only(site, 1)
    for path in ("", "/live", "/box/0.jpg", "/sheet.png"):
        assert site.client.get(f"/tator/data/job/{job.id}{path}").status_code == 403
    for what in ("cancel", "go"):
        assert site.client.post(f"/tator/data/job/{job.id}/{what}").status_code == 403


def test_boxes_stand_on_their_cutting_where_they_stood_on_the_picture() -> None:
    crop = crop_around([(100, 100, 200, 150), (110, 90, 190, 150)])
    assert (crop.left, crop.top, crop.side) == (70, 40, 160)
    assert crop.placed((100, 100, 200, 150)) == (60.0, 120.0, 200.0, 100.0)


def test_jobs_are_cancelled_and_others_are_not_shown_here(site: Site) -> None:
    job = site.job("relabel", 1, request={"project": 1})
    assert "It waits for a worker" in site.page(f"/tator/data/job/{job.id}")
    site.client.post(f"/tator/data/job/{job.id}/cancel")
    assert JobRecords(site.connection).get(job.id).status == "cancelled"
    assert site.client.get(f"/tator/data/job/{site.job('clip').id}").status_code == 404


RESULTS: dict[str, dict[str, Any]] = {
    "export": {"pictures": {"train": 3, "val": 1}, "classes": {"Car": 7}, "problems": ["task 3: gone"],
               "problem_count": 1, "notes": [], "form": "yolo", "dry_run": False},
    "import": {"id": "import-1-0f1e2d3c4b5a", "created": 3, "missing": {"Bus": 2}, "regions": {"Car": 4}, "bad": 1},
    "register": {"dataset": "cars", "known": True, "same": False, "pictures": 4},
    "polygons": {"finished": True, "build": "polygons-0c1d2e3f4a", "pictures": 3, "masks": 5, "median_vertices": 11.0,
                 "drawn": 0, "kept": 1, "unreadable": 0, "segmenter": "starter", "pushed": 2, "already_there": 0,
                 "reasons": {"it is too small": 1}, "shown": [{"picture": "a.png", "label": "Car", "why": "small"}],
                 "notes": [], "model_version": "starter/p", "splits": {"train": 3}},
    "prelabel": {"objects": 4, "offered_tasks": 2, "tasks": 3, "model": "base", "mode": "bbox", "counts": {"Car": 4},
                 "notes": [], "pushed": 2, "already_there": 0, "model_version": "v"},
    "relabel": {"boxes": 9, "tasks": 4, "head": "h-1", "disagreements": 1, "doubtful_tasks": 1, "offered": 1,
                "pushed": 1, "pairs": [{"from": "Car", "to": "Bus", "count": 1}], "notes": [], "model_version": "h",
                "doubtful": [{"task": 2, "annotation": 3, "region": "r", "from": "Car", "to": "Bus", "given": 0.02,
                              "probability": 0.9, "image": "0" * 64, "xyxy": [1, 2, 30, 40]}]},
    "undo": {"of": "import-1-0f1e2d3c4b5a", "tasks": 3, "annotations": 0, "predictions": 0, "kept": [4],
             "kept_count": 1},
}  # fmt: skip


@pytest.mark.parametrize("kind", RESULTS)
def test_each_result_is_shown(site: Site, kind: str) -> None:
    job = site.job(kind, 1, request={"project": 1})
    site.ended(job, Ending("done", result=RESULTS[kind]))
    page = site.page(f"/tator/data/job/{job.id}")
    assert ("Take it back" in page) == (kind in ("polygons", "prelabel", "relabel"))
    assert json.dumps(RESULTS[kind]) not in page


def test_files_that_tator_wrote_are_removed(site: Site) -> None:
    address, _ = looked(site, send(site, zipped(yolo())))
    site.client.post(f"{address}/keep")
    record = DatasetRegistry(site.settings.home).register(Path(newest(site).request["path"]))
    assert "Remove its files" in site.page(f"/tator/data/set/{record.id}")
    site.client.post(f"/tator/data/set/{record.id}/remove")
    assert not Path(record.path).exists() and not DatasetRegistry(site.settings.home).list()
