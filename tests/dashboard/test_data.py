"""Data sets and uploads, without models and without Label Studio."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from tator_ml.jobs import JobError
from tator_ml.jobs.order import Ending
from tator_ml.web.dashboard.data.errands import Errands
from tator_ml.web.dashboard.data.uploads import KEPT_SECONDS
from tator_sdk import looking
from tator_sdk.datasets import DatasetRegistry
from tator_sdk.formats.archive import seal
from tator_sdk.looking import Look, look_at_set, look_at_states, look_at_upload
from tator_sdk.settings import Settings

from .conftest import Site
from .sets import Files, looked, newest, picture, registered, see_only, send, yolo, zipped


@pytest.fixture(autouse=True)
def _looks_are_taken_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """Not in a process of their own, which takes its time to start; one test has it so."""
    if "process_of_its_own" not in request.node.name:
        monkeypatch.setattr(Errands, "send", lambda _, *words: looking.take(words[0], words[1:], settings))


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


def upload_for(site: Site, project: int) -> tuple[str, Look]:
    """An upload that was looked at for a project, though there is no Label Studio to try it in."""
    address, look = looked(site, send(site, zipped(yolo())))
    folder = site.settings.home / "uploads" / address.rsplit("/", 1)[1]
    about = json.loads((folder / "upload.json").read_bytes())
    (folder / "upload.json").write_text(json.dumps({**about, "project": project}))
    look = replace(look, project=project, report={"notes": [], "regions": {}, "created": 3})
    look.write(folder)
    return address, look


def test_what_a_job_reads_is_not_thrown_away(site: Site) -> None:
    address, look = upload_for(site, 1)
    folder = site.settings.home / "uploads" / address.rsplit("/", 1)[1]
    assert site.client.post(f"{address}/start").status_code == 302
    job = newest(site)
    assert job.kind == "import" and job.request["path"] == look.root
    answer = site.client.post(f"{address}/discard")
    assert answer.status_code == 400 and f"{job.id} reads cars.zip" in answer.text and Path(look.root).exists()
    long_ago = time.time() - 2 * KEPT_SECONDS
    os.utime(folder, (long_ago, long_ago))
    send(site, zipped(yolo(1)))
    assert Path(look.root).exists(), "nor does it grow too old"
    site.ended(job, Ending("done", result={}))
    assert site.client.post(f"{address}/discard").status_code == 302 and not folder.exists()


def test_a_look_for_another_project_is_no_look(site: Site) -> None:
    address, look = upload_for(site, 1)
    replace(look, project=2).write(site.settings.home / "uploads" / address.rsplit("/", 1)[1])
    answer = site.client.post(f"{address}/start")
    assert answer.status_code == 400 and "another project" in answer.text


def test_what_cannot_be_kept_stays_an_upload(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    address, look = looked(site, send(site, zipped(yolo())))

    def away(*_: object) -> None:
        raise JobError("Redis does not answer")

    with monkeypatch.context() as patch:
        patch.setattr("tator_ml.web.dashboard.data.importing.launch", away)
        assert site.client.post(f"{address}/keep").status_code >= 400
    assert (Path(look.root) / "data.yaml").exists() and not any((site.settings.home / "sets").iterdir())
    assert site.client.post(f"{address}/keep").status_code == 302


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
