"""Every route there is: signed out, without a form's token, from another site, and for somebody else's project.

The routes are read from the application, so that a new one without its check fails here.
"""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from tator_ml.engine.crops import CropRecipe
from tator_ml.engine.head import Head
from tator_ml.jobs.order import Ending
from tator_ml.learning.stores import head_registry
from tator_ml.web.access import on_dashboard
from tator_sdk.datasets import DatasetRecord
from tator_sdk.settings import Settings
from tests.dashboard.conftest import Site, build_site, close_site
from tests.dashboard.test_access import PASSWORD, TOKEN, Members, form_token, sign_in

MARK = "SECRET-OF-PROJECT-THREE"
THEIRS = 3
"""The visitor may see projects 1 and 2."""
OPEN = {"signing.sign_in", "signing.sign_out", "dashboard.static", "static"}
FOR_PROGRAMS = ("wire.", "control.", "metrics", "strip.")
SHARED = {
    "dashboard.home",
    "dashboard.plotly_script",
    "dashboard.static",
    "signing.sign_in",
    "signing.sign_out",
    "static",
}
"""Dashboard routes that hold nothing of any project."""


@pytest.fixture
def locked(settings: Settings, members: Members) -> Iterator[Site]:
    """A dashboard behind a password, with forms guarded, and things of a project that the visitor may not see."""
    made = build_site(settings.model_copy(update={"password": SecretStr(PASSWORD)}))
    made.client.application.config["WTF_CSRF_ENABLED"] = True
    yield made
    close_site(made)


def rules(site: Site) -> list[tuple[Rule, str]]:
    """Every route with each of its methods."""
    found = sorted(
        site.client.application.url_map.iter_rules(), key=lambda rule: (rule.rule, sorted(rule.methods or ()))
    )
    return [(rule, method) for rule in found for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})]


def address(rule: Rule, values: dict[str, str]) -> str:
    """A rule's address; a part of an unknown name fails, so that somebody thinks of it."""
    return re.sub(r"<(?:\w+:)?(\w+)>", lambda part: values[part[1]], rule.rule)


ANY = {"job_id": "clip-1-aaaa", "name": "x", "role": "head", "kind": "clip", "image": "a" * 64, "number": "1",
       "index": "0", "upload_id": "0" * 12, "file": "a.jpg", "project": "3", "filename": "dashboard.css"}  # fmt: skip


def test_nothing_is_answered_before_the_sign_in(locked: Site) -> None:
    for rule, method in rules(locked):
        if rule.endpoint in OPEN:
            continue
        answer = locked.client.open(address(rule, ANY), method=method)
        if rule.endpoint.startswith("strip."):
            assert answer.status_code == 403, rule
        elif on_dashboard(rule.rule) and method == "GET":
            assert answer.status_code == 302 and "/tator/sign-in" in answer.headers["Location"], rule
        else:
            assert answer.status_code == 401, (rule, method, answer.status_code)


def test_no_form_is_taken_without_its_token(locked: Site) -> None:
    assert sign_in(locked.client, username="tator", password=PASSWORD, **{"as": "administrator"}).status_code == 303
    tried = 0
    for rule, method in rules(locked):
        if method == "GET" or rule.endpoint.startswith(FOR_PROGRAMS):
            continue
        tried += 1
        for sent in ({}, {"csrf_token": "made up"}):
            data = {**sent, "project": "1"}
            if rule.endpoint == "dashboard.data_import_send":
                data["archive"] = (io.BytesIO(b"PK"), "a.zip")  # type: ignore[assignment]
            answer = locked.client.open(address(rule, ANY), method=method, data=data)
            assert (answer.status_code == 400 and "nothing was changed" in answer.text) or (
                rule.endpoint == "dashboard.data_import_send" and answer.status_code == 400
            ), (rule, answer.status_code)
    assert tried > 30 and not list((locked.settings.home / "uploads").glob("*/*"))


@pytest.mark.parametrize("site_of", ["cross-site", "same-site"])
@pytest.mark.parametrize("password", [None, PASSWORD])
def test_no_other_sites_page_changes_anything(
    settings: Settings, members: Members, site_of: str, password: str | None
) -> None:
    """Though the browser would send Basic auth or the cookie along, and no password may be needed at all."""
    made = build_site(settings.model_copy(update={"password": SecretStr(password) if password else None}))
    auth = ("tator", PASSWORD) if password else None
    try:
        for rule, method in rules(made):
            if method == "GET":
                continue
            for headers in ({"Sec-Fetch-Site": site_of}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
                if "Origin" in headers and not rule.endpoint.startswith(("wire.", "control.")):
                    continue  # forms have their token, the strip takes JSON alone
                for kind in ("text/plain", "application/json"):
                    answer = made.client.open(
                        address(rule, ANY), method=method, data=b"{}", content_type=kind, headers=headers, auth=auth
                    )
                    assert answer.status_code == 403, (rule, headers, answer.status_code)
                    assert "Access-Control-Allow-Origin" not in answer.headers
    finally:
        close_site(made)


def test_label_studio_and_commands_come_through(site: Site) -> None:
    """They send no header of a browser, and know this machine by whatever name."""
    for host in ("127.0.0.1:9090", "host.docker.internal:9090"):
        answer = site.client.post("/webhook", json={"action": "x", "project": {"id": 1}}, headers={"Host": host})
        assert answer.status_code == 200, answer.text
    own = {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}
    assert site.client.post("/strip/choices?project=1", json={"preload": True}, headers=own).status_code == 200


def test_a_rebound_name_reaches_nothing_that_needs_no_password(site: Site) -> None:
    """``evil.example`` resolves to 127.0.0.1 by now: for the browser that is its page's own origin."""
    for rule, method in rules(site):
        headers = {"Host": "evil.example:9090"}
        if method != "GET":
            headers["Origin"] = "http://evil.example:9090"
        elif rule.endpoint.startswith(("wire.", "metrics", "static")):
            continue  # read without a password they hold no project's data
        answer = site.client.open(address(rule, ANY), method=method, data=b"{}", headers=headers)
        assert answer.status_code == 403, (rule, method, answer.status_code)


def foreign_things(site: Site) -> dict[str, list[dict[str, str]]]:
    """Something of each kind in project 3, whose texts hold the mark; by a route's variable, its names."""
    home = site.settings.home
    jobs = {}
    for kind in ("clip", "tweak", "relabel", "prelabel", "import", "export", "register", "preview", "undo", "warm"):
        request = {"project": THEIRS, "prompt": MARK, "kind": "clip", "request": {"project": THEIRS}, "dry_run": True}
        job = site.job(kind, THEIRS, title=MARK, request=request)
        site.ended(job, Ending("done", result={"said": MARK, "notes": [MARK]}))
        folder = home / "jobs" / job.id
        folder.mkdir(parents=True)
        for name in ("report.json", "sheet.png"):
            (folder / name).write_text(MARK)
        jobs[kind] = job.id
    head = Head((MARK,), np.eye(1, dtype=np.float32), np.zeros(1, np.float32), 1.0, 0.5, 0.1, "s", CropRecipe(), "h")
    version = head_registry(site.settings).add(head, THEIRS, {"reason": MARK}).version
    (home / "datasets").mkdir(exist_ok=True)
    (home / "set").mkdir()
    (home / "set" / "a.txt").write_text(MARK)
    record = DatasetRecord(
        "theirs",
        "yolo-detect",
        str(home / "set"),
        {MARK: 1},
        1,
        {"": 1},
        "0" * 64,
        "0" * 64,
        {"project": THEIRS},
        "2026",
    )
    (home / "datasets" / "theirs.json").write_text(json.dumps(record.__dict__))
    upload = home / "uploads" / "abcdefabcdef"
    (upload / "samples").mkdir(parents=True)
    (upload / "samples" / "a.jpg").write_text(MARK)
    about = {"id": "abcdefabcdef", "name": f"{MARK}.zip", "nbytes": 1, "who": "bob@example.com", "moment": time.time(),
             "project": THEIRS}  # fmt: skip
    (upload / "upload.json").write_text(json.dumps(about))
    image = site.services.images._store.put(MARK.encode())  # type: ignore[attr-defined]
    site.services.uses.seen(image, THEIRS, 7)
    site.services.notices.failed(THEIRS, MARK)
    return {
        "job_id": [{"job_id": one} for one in jobs.values()],
        "name": [{"name": version, "role": "head"}, {"name": "theirs", "role": "head"}],
        "upload_id": [{"upload_id": "abcdefabcdef"}],
        "image": [{"image": image}],
    }


def test_nobody_sees_or_changes_a_project_that_is_not_theirs(locked: Site) -> None:
    things = foreign_things(locked)
    assert sign_in(locked.client, token=TOKEN).status_code == 303
    token = form_token(locked.client, "/tator/now")
    before = snapshot(locked)
    seen = set()
    for rule, method in rules(locked):
        if rule.endpoint.startswith(FOR_PROGRAMS) or rule.endpoint in SHARED:
            continue
        variables = [one for one in things if f"{one}>" in rule.rule]
        for values in things[variables[0]] if variables else [{}]:
            where = address(rule, {**ANY, **values})
            for project in ("", f"?project={THEIRS}"):
                answer = ask(locked.client, method, where + project, token, rule.endpoint)
                assert MARK not in answer.text, (rule, method, values)
                assert answer.status_code < 500, (rule, method, answer.text[-300:])
                if variables and method == "GET" and not where.endswith("/live"):
                    assert answer.status_code in {403, 404}, (rule, values, answer.status_code)
                seen.add(rule.endpoint)
    assert snapshot(locked) == before, "nothing of theirs was changed, and no job of theirs was started"
    assert len(seen) > 60


def ask(client: FlaskClient, method: str, where: str, token: str, endpoint: str) -> TestResponse:
    """A request as a page of the dashboard sends it; of a stream its first part is enough."""
    data = {"csrf_token": token, "project": str(THEIRS), "of": "tweak-3-abcd", "people": "ann", "budget": "5",
            "do": "run", "source": f"project:{THEIRS}"}  # fmt: skip
    if endpoint == "dashboard.data_import_send":
        data["archive"] = (io.BytesIO(b"PK"), "a.zip")  # type: ignore[assignment]
    if method != "GET":
        return client.open(where, method=method, data=data)
    answer = client.get(where)
    if answer.mimetype == "text/event-stream":
        parts = iter(answer.response)
        text = "".join(next(parts, b"").decode() for _ in range(2))
        answer.close()
        answer = TestResponse([text.encode()], answer.status, answer.headers, answer.request)
    return answer


def snapshot(site: Site) -> list[str]:
    """What there is: files under home but for what looks leave behind, and jobs."""
    files = [str(path) for path in Path(site.settings.home).rglob("*") if path.is_file()]
    kept = [one for one in files if not re.search(r"looks|states|sqlite|\.lock|jobs/preview", one)]
    return sorted([*kept, *(key.decode() for key in site.connection.keys("tator:job:*"))])


def test_the_mark_is_seen_by_those_who_may(locked: Site) -> None:
    """Or the test above could not fail."""
    things = foreign_things(locked)
    sign_in(locked.client, username="tator", password=PASSWORD, **{"as": "administrator"})
    head = things["name"][0]["name"]
    for where in ("jobs", f"jobs/{things['job_id'][0]['job_id']}", "now", f"models/head/{head}", "data", "data/import",
                  "data/import/abcdefabcdef", "data/set/theirs"):  # fmt: skip
        assert MARK in locked.page(f"/tator/{where}"), where


HERE = "/etc/OF-THIS-MACHINE"
FORMS = ("train/clip", "train/qwen", "train/sam3", "data/export", "data/polygons", "data/tweak", "data/relabel",
         "data/prelabel")  # fmt: skip
PATHS = ("path", "output", "images_path", "labels_path", "labelmap_path", "images", "names", "local_files",
         "url_prefix", "dataset", "base", "encoder", "source_path", "device", "origin", "kind", "model")  # fmt: skip


def test_no_member_names_a_path_of_this_machine(locked: Site) -> None:
    """Neither in a form that does not ask for it, nor when a job is asked for once more."""
    own = locked.job("prelabel", 1, request={"project": 1, "prompt": "a car", "dry_run": True})
    locked.ended(own, Ending("done", result={}))
    assert sign_in(locked.client, token=TOKEN).status_code == 303
    data = {**dict.fromkeys(PATHS, HERE), "csrf_token": form_token(locked.client, "/tator/now"), "project": "1",
            "do": "run", "prompt": "cars"}  # fmt: skip
    for source in ("project:1", "path", HERE, ""):
        for form in FORMS:
            answer = locked.client.post(f"/tator/{form}", data={**data, "source": source})
            assert answer.status_code in {302, 400, 403, 409, 422}, (form, answer.status_code)
    locked.client.post(f"/tator/jobs/{own.id}/again", data=data)
    locked.client.post("/tator/data/add", data=data)
    jobs = [locked.connection.hgetall(key) for key in locked.connection.keys("tator:job:*-????")]
    assert len(jobs) >= 4, "some were started"
    for job in jobs:
        assert HERE.encode() not in job[b"request"], job


@pytest.mark.parametrize(
    "name", ["../../../evil.zip", "/etc/evil.zip", "..\\evil.zip", "a\r\nX: y.zip", "e" * 400, "\u202evil"]
)
def test_an_uploads_name_is_no_path(site: Site, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("tator_ml.web.dashboard.data.errands.Errands.send", lambda *_: None)
    answer = site.client.post("/tator/data/import", data={"project": "1", "archive": (io.BytesIO(b"PK"), name)})
    assert answer.status_code in {302, 400}
    files = [one for one in (site.settings.home / "uploads").rglob("*") if one.is_file()]
    for one in files:
        assert one.parent.parent == site.settings.home / "uploads" and (
            one.name.endswith(".zip") or one.name == "upload.json"
        )
    assert not list(site.settings.home.parent.glob("evil*")) and not Path("/etc/evil.zip").exists()
