"""The Jobs pages over a real Redis: list, one job, log, curves, result, cancel, retry, again with changes."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from flask import g

from tator_ml.jobs import JobRecords, connect_redis, start
from tator_ml.jobs.fence import Fence
from tator_ml.jobs.order import Ending
from tator_ml.launch import launch
from tator_ml.learning.stores import head_registry
from tator_ml.web.access import Visitor
from tator_ml.web.dashboard.jobs.curves import curves
from tator_ml.web.dashboard.jobs.history import ON_A_PAGE
from tator_sdk.requests import HeadTraining, Prelabel
from tator_sdk.settings import Settings

from ..jobs.conftest import serving_redis
from ..learning.material import head_of
from .conftest import Site, build_site


@pytest.fixture
def guest(site: Site) -> Iterator[Site]:
    """The site, visited by somebody who may see project 1 alone."""

    def arrive() -> None:
        g.visitor = Visitor("ann@example.org", frozenset({1}))

    site.client.application.before_request_funcs.setdefault(None, []).append(arrive)
    yield site


def test_the_list_is_narrowed_and_paged(site: Site) -> None:
    for number in range(ON_A_PAGE + 3):
        site.job("clip", project=1 + number % 2, title=f"training {number}")
    site.ended(site.job("tweak", project=7, title="<b>boxes</b>"), Ending("failed", error="No disk."))
    page = site.page("/tator/jobs")
    assert "&lt;b&gt;boxes&lt;/b&gt;" in page and "No disk." in page and "page 1 of 2" in page
    assert "training 0<" not in page and "training 0<" in site.page("/tator/jobs?page=2")
    only = site.page("/tator/jobs?kind=tweak&status=failed&project=7")
    assert "1 job" in only and "training" not in only.partition("<main")[2].partition("</form>")[2]
    assert "There are no such jobs" in site.page("/tator/jobs?status=done")


def test_people_see_the_jobs_of_their_projects_alone(guest: Site) -> None:
    mine, other, nobodys = guest.job(title="mine"), guest.job(project=2, title="other"), guest.job(project=None)
    page = guest.page("/tator/jobs")
    assert "mine" in page and "other" not in page and nobodys.id not in page
    guest.page(f"/tator/jobs/{mine.id}")
    for address in ("", "/live", "/log", "/log.txt", "/again", "/files/report.json"):
        guest.page(f"/tator/jobs/{other.id}{address}", 403)
        guest.page(f"/tator/jobs/{nobodys.id}{address}", 403)
    for verb in ("cancel", "retry", "again"):
        assert guest.client.post(f"/tator/jobs/{other.id}/{verb}").status_code == 403
    assert JobRecords(guest.connection).get(other.id).status == "queued"


def test_a_job_that_is_not_there(site: Site) -> None:
    assert "There is no job clip-1-none" in site.page("/tator/jobs/clip-1-none", 404)
    site.page("/tator/jobs/..%2f..%2fsecret", 404)


def test_its_log_can_be_followed_and_taken_along(site: Site) -> None:
    job = site.job()
    fence = Fence(site.connection, job.id, site.begun(job))
    fence.log([f"line {number}" for number in range(1, 1501)])
    page = site.page(f"/tator/jobs/{job.id}")
    assert "line 1500" in page and "line 1301" in page and "line 1300\n" not in page and "1300 before them" in page
    told = site.client.get(f"/tator/jobs/{job.id}/log?after=1498").json
    assert told == {"lines": ["line 1499", "line 1500"], "end": 1500, "left_out": 0}
    late = site.client.get(f"/tator/jobs/{job.id}/log?after=100").json
    assert len(late["lines"]) == 1000 and late["left_out"] == 400
    assert site.client.get(f"/tator/jobs/{job.id}/log.txt").text.splitlines()[0] == "line 1"


def test_what_it_tells_comes_live(site: Site) -> None:
    job = site.job()
    answer = site.client.get(f"/tator/jobs/{job.id}/live")
    events = iter(answer.response)  # type: ignore[arg-type]
    assert next(events).startswith(b"retry") and b"queued" in next(events)  # type: ignore[union-attr]
    fence = Fence(site.connection, job.id, site.begun(job))
    fence.set({"done": 3, "total": 8, "what": "fitting"})
    fence.log(["hello"])
    told = next(events)
    assert b"3 of 8" in told and b'"log-end": "1"' in told  # type: ignore[operator]
    answer.close()


def test_curves_group_what_belongs_together() -> None:
    points = [
        {"step": 1, "loss": 2.0, "rate": 0.1, "loss_box": 1.5},
        {"step": 2, "loss": 1.0, "validation_loss": 1.2, "ap50": 0.4, "ar": 0.5},
        {"step": 3, "loss": None, "note": "x"},
        {"step": 2, "loss": 0.9},
    ]
    plots = {one.caption: one for one in curves(points)}
    assert list(plots) == ["Quality, where 1 is perfect", "Loss", "Learning rate", "Parts of the loss"]
    assert {one["name"]: (one["x"], one["y"]) for one in plots["Loss"].data} == {
        "training": ([1, 2], [2.0, 0.9]),  # a later attempt told step 2 again
        "validation": ([2], [1.2]),
    }
    assert {one["name"] for one in plots["Quality, where 1 is perfect"].data} == {"AP50", "AR"}
    assert curves([]) == [] and [one.caption for one in curves([{"train_accuracy": 0.5}])] == list(plots)[:1]


def test_the_result_is_told_in_words_and_files_come_from_the_folder_alone(site: Site) -> None:
    job = site.job("tweak", request={"project": 1})
    folder = site.settings.home / "jobs" / job.id
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "report.json").write_text('{"boxes": 9}')
    for name in ("plan.lock", ".report.json.part"):
        (folder / name).write_text("x")
    (folder / "link.json").symlink_to(site.settings.home / "secret")
    given = {"boxes": 9, "tasks": 4, "moved": 3, "dry_run": True, "counts": {"Star": 2}, "notes": ["one was <gone>"]}
    site.ended(job, Ending("done", result=given))
    page = site.page(f"/tator/jobs/{job.id}")
    assert "3 of 9 boxes in 4 tasks would move. Nothing was changed: it was a dry run." in page
    assert "Star" in page and "one was &lt;gone&gt;" in page and "report.json" in page
    for hidden in ("plan.lock", "link.json", "checkpoints"):
        assert hidden not in page
        site.page(f"/tator/jobs/{job.id}/files/{hidden}", 404)
    assert site.client.get(f"/tator/jobs/{job.id}/files/report.json").text == '{"boxes": 9}'
    site.page(f"/tator/jobs/{job.id}/files/..%2F..%2Fsecret", 404)


def test_a_training_s_model_can_be_downloaded(site: Site, small_head: str) -> None:
    job = site.job()
    site.ended(job, Ending("done", result={"version": small_head, "activated": True, "reason": "the first"}))
    assert f"{small_head} is active now: the first." in site.page(f"/tator/jobs/{job.id}")
    page = site.page(f"/tator/jobs/{job.id}")
    address = next(one for one in page.split('"') if one.startswith("/tator/models/") and "download" in one)
    answer = site.client.get(address)
    assert small_head in answer.headers["Content-Disposition"]
    assert zipfile.ZipFile(io.BytesIO(answer.data)).testzip() is None


@pytest.fixture
def small_head(site: Site) -> str:
    return head_registry(site.settings).add(head_of(), 1, {}, []).version


def test_cancelled_and_done_again(site: Site) -> None:
    job = site.job("clip", request=HeadTraining(project=1).model_dump(mode="json"))
    assert site.client.post(f"/tator/jobs/{job.id}/cancel").status_code == 302
    assert "It is cancelled." in site.page(f"/tator/jobs/{job.id}")
    moved = site.client.post(f"/tator/jobs/{job.id}/retry").headers["Location"]
    assert moved != f"/tator/jobs/{job.id}" and "queued" in site.page(moved)
    assert "does the same once more" not in site.page(moved)  # said once
    running = site.job("tweak", request={"project": 1})
    site.begun(running)
    site.client.post(f"/tator/jobs/{running.id}/cancel")
    assert "asked to stop" in site.page(f"/tator/jobs/{running.id}")


def test_again_with_another_prompt(site: Site) -> None:
    (job,) = launch(site.settings, Prelabel(project=1, prompt="every star", dry_run=True))
    site.ended(job, Ending("done", result={}))
    form = site.page(f"/tator/jobs/{job.id}/again")
    assert "every star" in form and 'name="project"' not in form
    sent = {"prompt": "every moon", "project": "2", "dry_run": "yes"}
    answer = site.client.post(f"/tator/jobs/{job.id}/again", data=sent)
    assert answer.status_code == 302, answer.text
    fresh = JobRecords(site.connection).get(answer.headers["Location"].rpartition("/")[2])
    assert (fresh.request["prompt"], fresh.request["project"], fresh.project) == ("every moon", 1, 1)
    refused = site.client.post(f"/tator/jobs/{job.id}/again", data={**sent, "min_score": "seven"})
    assert refused.status_code in (302, 422)


def test_it_is_said_where_another_runs_first(site: Site) -> None:
    (first,) = launch(site.settings, Prelabel(project=1, prompt="every star", dry_run=True))
    site.begun(first)
    sent = {"prompt": "every moon", "dry_run": "yes"}
    answer = site.client.post(f"/tator/jobs/{first.id}/again", data=sent, follow_redirects=True)
    assert f"{first.id} runs with other settings; yours starts when it has ended." in answer.text


def test_others_cannot_name_paths_of_this_machine(guest: Site) -> None:
    (job,) = launch(guest.settings, HeadTraining(project=1))
    guest.ended(job, Ending("done", result={}))
    assert 'name="images_path"' not in guest.page(f"/tator/jobs/{job.id}/again")
    data = {"images_path": "/etc", "encoder": "/etc", "seed": "5"}
    answer = guest.client.post(f"/tator/jobs/{job.id}/again", data=data)
    fresh = JobRecords(guest.connection).get(answer.headers["Location"].rpartition("/")[2])
    assert fresh.request["images_path"] is None and fresh.request["encoder"] is None and fresh.request["seed"] == 5


def test_redis_that_is_away_is_a_sentence(tmp_path: Path) -> None:
    site = build_site(Settings(home=tmp_path, redis_url="redis://127.0.0.1:9/0"))
    try:
        assert "Redis does not answer" in site.page("/tator/jobs")
        assert "Redis does not answer" in site.page("/tator/jobs/clip-1-abcd", 503)
    finally:
        site.client.application.extensions["tator_watch"].stop()
        site.services.suggestions.close()


def test_the_history_survives_a_killed_redis(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, redis_url=None)
    with serving_redis(settings):
        job = start(settings, "clip", {"project": 1}, project=1, title="before the fall")
        with connect_redis(settings) as connection:
            Fence(connection, job.id, 0).log(["kept"])
        time.sleep(1.2)  # its file is written each second
    with pytest.raises(redis.ConnectionError), connect_redis(settings) as connection:
        connection.ping()
    with serving_redis(settings):
        site = build_site(settings)  # another web process, too
        try:
            assert "before the fall" in site.page("/tator/jobs")
        finally:
            site.client.application.extensions["tator_watch"].stop()
            site.services.suggestions.close()
            site.connection.close()
