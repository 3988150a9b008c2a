"""Data sets, uploads and work on projects, without models and without Label Studio."""

from __future__ import annotations

import io
import json
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from flask import g
from PIL import Image

from tator_ml.jobs import JobRecord, JobRecords
from tator_ml.jobs.order import Ending
from tator_ml.learning.stores import image_store
from tator_ml.web.access import Visitor
from tator_ml.web.dashboard.data.crops import SIDE, crop_around
from tator_ml.web.dashboard.data.errands import Errands
from tator_sdk import looking
from tator_sdk.datasets import DatasetRecord, DatasetRegistry
from tator_sdk.formats.archive import seal
from tator_sdk.looking import Look, look_at_set, look_at_states, look_at_upload
from tator_sdk.settings import Settings

from .conftest import Site

Files = dict[str, bytes | str]


@pytest.fixture(autouse=True)
def _looks_are_taken_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """Not in a process of their own, which takes its time to start; one test has it so."""
    if "process_of_its_own" not in request.node.name:
        monkeypatch.setattr(Errands, "send", lambda _, *words: looking.take(words[0], words[1:], settings))


def picture(shade: int = 90, size_wh: tuple[int, int] = (64, 48)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size_wh, (shade, 90, 60)).save(stream, "PNG")
    return stream.getvalue()


def yolo(pictures: int = 2, **more: bytes | str) -> Files:
    files: Files = {"data.yaml": "train: images/train\nval: images/val\nnames: [Car, Bus]\n"}
    for number in range(pictures):
        files[f"images/train/{number}.png"] = picture(number)
        files[f"labels/train/{number}.txt"] = "0 0.5 0.5 0.5 0.5\n1 0.1 0.1 0.1 0.1\n"
    return {**files, "images/val/9.png": picture(9), **more}


def zipped(files: Files) -> io.BytesIO:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    stream.seek(0)
    return stream


def send(site: Site, archive: io.BytesIO, name: str = "cars.zip", project: str = "", **headers: str) -> Any:
    form = {"csrf_token": "x", "project": project, "file": (archive, name)}
    return site.client.post("/tator/data/import", data=form, headers=headers)


def looked(site: Site, answer: Any) -> tuple[str, Look]:
    """The address of an upload and what was found in it, once the errand is through."""
    assert answer.status_code == 302, answer.text
    address = str(answer.location)
    folder = site.settings.home / "uploads" / address.rsplit("/", 1)[1]
    deadline = time.monotonic() + 30
    while (look := Look.read(folder)) is None:
        assert time.monotonic() < deadline, "nobody looked at it"
        time.sleep(0.05)
    return address, look


def see_only(site: Site, *projects: int, name: str = "ann@example.com") -> None:
    """Whoever asks from now on may see these projects."""
    before = site.client.application.before_request_funcs[None]
    before.append(lambda: setattr(g, "visitor", Visitor(name, frozenset(projects))))


def registered(site: Site, name: str, **source: Any) -> DatasetRecord:
    folder = site.settings.home / "sets" / name
    zipfile.ZipFile(zipped(yolo())).extractall(folder)
    return DatasetRegistry(site.settings.home).register(folder, source=source)


def newest(site: Site) -> JobRecord:
    return JobRecords(site.connection).list(limit=1)[0]


def test_a_look_is_taken_in_a_process_of_its_own(site: Site) -> None:
    address, look = looked(site, send(site, zipped(yolo())))
    assert look.classes == {"Car": 2, "Bus": 2} and "Some of its pictures" in site.page(address)


def test_an_upload_is_looked_at_kept_and_thrown_away(site: Site) -> None:
    page = site.page("/tator/data/import")
    assert 'type="file"' in page and 'enctype="multipart/form-data"' in page
    address, look = looked(site, send(site, zipped(yolo())))
    assert (look.kind, look.classes, look.splits) == ("yolo", {"Car": 2, "Bus": 2}, {"train": 2, "val": 1})
    page = site.page(address)
    assert "cars.zip" in page and page.count("<polygon") == 4 and "Keep as a data set only" in page
    assert site.client.get(f"{address}/sample/0.jpg").mimetype == "image/jpeg"
    for foreign in ("..%2f..%2fupload.json", "upload.json", "../look.json"):
        assert site.client.get(f"{address}/sample/{foreign}").status_code == 404
    kept = site.client.post(f"{address}/keep")
    job = newest(site)
    assert kept.location.endswith(job.id) and job.kind == "register" and job.request["origin"] == "cars.zip"
    assert (Path(job.request["path"]) / "data.yaml").exists() and site.client.get(address).status_code == 404
    address, _ = looked(site, send(site, zipped(yolo())))
    assert site.client.post(f"{address}/discard").status_code == 302
    assert not list((site.settings.home / "uploads").iterdir())


def test_the_script_is_told_where_to_go(site: Site) -> None:
    answer = send(site, zipped(yolo(1)), Accept="application/json")
    assert answer.status_code == 200 and "/tator/data/import/" in answer.json["to"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"notes.txt": "nothing"}, "class names"),
        ({"data.yaml": "names: [Car]"}, "no pictures"),
        ({"data.yaml": "names: [Car]\n", "images/a.png": "no picture", "labels/a.txt": "0 .5 .5 .1 .1"}, "no picture"),
    ],
)
def test_what_is_no_data_set_is_said_in_a_sentence(files: Files, said: str, tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "bad.zip").write_bytes(zipped(files).read())
    look = look_at_upload(tmp_path, None, settings)
    assert said in look.error and str(tmp_path) not in look.error and Look.read(tmp_path) == look


@pytest.mark.parametrize("content", [b"", b"no zip at all", zipped(yolo()).read()[:-40]])
def test_what_is_no_zip_is_refused(content: bytes, tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "bad.zip").write_bytes(content)
    assert "whole zip" in look_at_upload(tmp_path, None, settings).error


def test_nothing_leads_out_of_an_upload(tmp_path: Path, settings: Settings) -> None:
    """Neither an entry's name, nor a link, nor what its data.yaml says, now or when a job reads it later."""
    secret = tmp_path / "secret"
    (secret / "images").mkdir(parents=True)
    (secret / "images" / "private.png").write_bytes(picture())
    place = tmp_path / "upload"
    place.mkdir()
    files = yolo(1, **{"../outside.txt": "x", "/absolute.txt": "x"})
    files["data.yaml"] = f"path: {secret}\ntrain: images\nval: ../../../../{secret.name}/images\nnames: [Car, Bus]\n"
    with zipfile.ZipFile(place / "cars.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        link = zipfile.ZipInfo("images/train/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(secret / "images" / "private.png"))
    look = look_at_upload(place, None, settings)
    names = {one.name for one in look.samples}
    assert look.bad_count >= 3 and "private.png" not in " ".join(names)
    assert not list(tmp_path.rglob("outside.txt")) and not list(tmp_path.rglob("link.png"))
    record = DatasetRegistry(settings.home).register(Path(look.root))
    assert record.pictures == sum(look.splits.values()) <= 2


def test_a_sealed_folder_stays_sealed_wherever_it_is_moved(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "a.png").write_bytes(picture())
    folder = tmp_path / "set"
    zipfile.ZipFile(zipped(yolo(1))).extractall(folder)
    (folder / "data.yaml").write_text("train: [images/train, ../private]\nnames: [Car, Bus]\n")
    assert DatasetRegistry(settings.home).register(folder).pictures == 2
    seal(folder)
    assert DatasetRegistry(settings.home).register(folder).pictures == 1


def test_a_bomb_is_not_unpacked(tmp_path: Path, settings: Settings) -> None:
    small = settings.model_copy(update={"upload_max_bytes": 2**20})
    (tmp_path / "bomb.zip").write_bytes(zipped({"data.yaml": "names: [a]", "a.txt": bytes(5 * 2**20)}).read())
    assert "more than" in look_at_upload(tmp_path, None, small).error
    assert not (tmp_path / "set" / "bomb").exists()


def test_what_is_too_large_is_refused_and_leaves_nothing(site: Site, settings: Settings) -> None:
    object.__setattr__(settings, "upload_max_bytes", 4096)
    answer = send(site, io.BytesIO(bytes(10_000)))
    assert answer.status_code == 413 and "4.1 kB" in answer.text
    assert not list((settings.home / "uploads").iterdir())


def test_a_form_of_another_site_is_refused_before_a_byte_is_written(site: Site) -> None:
    site.client.application.config["WTF_CSRF_ENABLED"] = True
    answer = send(site, zipped(yolo(1)))
    assert answer.status_code == 400 and "CSRF" in answer.text
    assert not list((site.settings.home / "uploads").iterdir())


def test_people_send_for_their_own_projects_and_see_their_own(site: Site) -> None:
    address, _ = looked(site, send(site, zipped(yolo(1))))
    see_only(site, 1)
    assert send(site, zipped(yolo(1)), project="2").status_code == 403
    assert send(site, zipped(yolo(1))).status_code == 400, "what belongs to no project would be nobody's"
    for path in (address, f"{address}/sample/0.jpg", f"{address}/live"):
        assert site.client.get(path).status_code == 404
    for what in ("keep", "discard", "look", "start"):
        assert site.client.post(f"{address}/{what}").status_code == 404
    mine, look = looked(site, send(site, zipped(yolo(1)), project="1"))
    assert "cannot be reached" in look.error, "there is no Label Studio to try it in"
    assert site.client.post(f"{mine}/look", data={"project": "2"}).status_code == 403
    assert site.client.post("/tator/data/undo", data={"of": "import-2-0f1e2d3c4b5a", "project": 2}).status_code == 403


def test_data_sets_are_shown_with_their_state(site: Site) -> None:
    cars = registered(site, "cars", project=1, origin="<b>cars.zip</b>")
    page = site.page("/tator/data")
    assert "unchanged" in page and "&lt;b&gt;cars.zip" in page and "<b>cars.zip" not in page
    (Path(cars.path) / "labels/train/0.txt").write_text("1 0.5 0.5 0.2 0.2\n")
    states = look_at_states(site.settings)
    assert states[cars.id]["state"] == "changed" and "changed since" in site.page("/tator/data")
    folder = site.settings.home / "looks" / f"{cars.id}-{cars.fingerprint[:12]}"
    look_at_set(cars, folder, site.settings)
    page = site.page(f"/tator/data/set/{cars.id}")
    assert page.count("<polygon") == 3 and "data-live" not in page
    assert site.client.get(f"/tator/data/set/{cars.id}/sample/0.jpg").mimetype == "image/jpeg"
    assert site.client.post(f"/tator/data/set/{cars.id}/renew").status_code == 302
    assert newest(site).kind == "register" and newest(site).project == 1
    answer = site.client.post(f"/tator/data/set/{cars.id}/remove", follow_redirects=True)
    assert "was not written by Tator" in answer.text and Path(cars.path).exists()
    assert "off the list" in site.client.post(f"/tator/data/set/{cars.id}/forget", follow_redirects=True).text
    assert not DatasetRegistry(site.settings.home).list()


def test_a_data_set_is_downloaded_as_a_zip_without_what_its_links_lead_to(site: Site) -> None:
    cars = registered(site, "cars", project=1)
    seal(Path(cars.path))
    (Path(cars.path) / "secret.txt").symlink_to("/etc/hostname")
    answer = site.client.get(f"/tator/data/set/{cars.id}/download")
    with zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
        assert set(archive.namelist()) == set(yolo()) and archive.testzip() is None
        assert archive.read("images/val/9.png") == picture(9)
    assert "attachment" in answer.headers["Content-Disposition"]


def test_data_sets_of_other_projects_are_not_seen(site: Site) -> None:
    foreign, nobodys, mine = (
        registered(site, "foreign", project=2),
        registered(site, "x"),
        registered(site, "m", project=1),
    )
    see_only(site, 1)
    page = site.page("/tator/data")
    assert mine.id in page and foreign.id not in page and f"set/{nobodys.id}" not in page
    assert "Add one that lies on this machine" not in page
    for one in (foreign, nobodys):
        for path in ("", "/live", "/download", "/sample/0.jpg"):
            assert site.client.get(f"/tator/data/set/{one.id}{path}").status_code == 403
        for what in ("renew", "forget", "remove"):
            assert site.client.post(f"/tator/data/set/{one.id}/{what}").status_code == 403
    assert site.client.post("/tator/data/add", data={"path": "/etc"}).status_code == 403
    assert foreign.path not in site.page("/tator/data/polygons")
    given = {"path": foreign.path, "project": ""}
    assert site.client.post("/tator/data/polygons", data=given).status_code == 400


def test_an_administrator_adds_a_path(site: Site, tmp_path: Path) -> None:
    assert site.client.post("/tator/data/add", data={"path": str(tmp_path / "none"), "type": ""}).status_code == 400
    zipfile.ZipFile(zipped(yolo())).extractall(tmp_path / "own")
    assert site.client.post("/tator/data/add", data={"path": str(tmp_path / "own"), "type": ""}).status_code == 302
    assert newest(site).request["path"] == str(tmp_path / "own")


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
