"""Records, unique names and fences, without a worker."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from rq import Queue

from tator_ml.jobs import JobError, cancel, lifecycle, retry
from tator_ml.jobs.connection import job_queue
from tator_ml.jobs.fence import Fence, Standing
from tator_ml.jobs.order import Ending
from tator_ml.jobs.owner import Owner
from tator_ml.jobs.queue import start
from tator_ml.jobs.records import MOST_LOG_LINES
from tator_ml.jobs.sweep import Sweeper
from tator_sdk.settings import Settings
from tests.jobs import work
from tests.jobs.conftest import Jobs
from training.job import JobCancelled, JobLost, LocalJob, QueuedJob


def begin(jobs: Jobs, job_id: str) -> int:
    attempt = lifecycle.begin(jobs.connection, job_id, Owner.current())
    assert attempt is not None
    return attempt


def waiting(jobs: Jobs) -> list[str]:
    queue: Queue = job_queue(jobs.connection)
    return list(queue.job_ids)


def test_a_started_job_is_in_the_queue_and_on_record(jobs: Jobs) -> None:
    record = jobs.start("count", {"steps": 3}, project=3)
    assert record.id.startswith("count-3-") and len(record.id) == len("count-3-7f2a")
    assert (record.status, record.attempt, record.request) == ("queued", 0, {"steps": 3})
    assert jobs.records.get(record.id) == record == jobs.records.find(record.id[:-1])
    assert waiting(jobs) == [f"{record.id}_1"]
    message = job_queue(jobs.connection).fetch_job(f"{record.id}_1")
    assert message is not None and message.args == [record.id, {"steps": 3}]


def test_errors_say_what_to_do(jobs: Jobs, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="There is no job nothing-1; `tator jobs list` shows them"):
        jobs.records.get("nothing-1")
    with pytest.raises(JobError, match="no kind of job magic"):
        start(jobs.settings, "magic", {}, title="magic")
    with pytest.raises(JobError, match="must be JSON"):
        jobs.start("count", {"folder": tmp_path})
    with pytest.raises(JobError, match="run `tator up`"):
        start(Settings(home=tmp_path, redis_url=f"unix://{tmp_path}/none"), "clip", {}, title="x")
    first, _ = jobs.start("count"), jobs.start("count")
    with pytest.raises(JobError, match="give more of the id"):
        jobs.records.find("count")
    with pytest.raises(JobError, match="has not ended"):
        retry(jobs.settings, first.id)


def test_newest_first_and_by_project(jobs: Jobs) -> None:
    made = [jobs.start("count", project=n % 2) for n in range(6)]
    assert [one.id for one in jobs.records.list()] == [one.id for one in reversed(made)]
    assert [one.id for one in jobs.records.list(project=1, limit=2)] == [made[5].id, made[3].id]


def test_many_starts_of_a_unique_name_make_one_job(jobs: Jobs) -> None:
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: ids.append(jobs.start("wait", {"n": n}, unique="clip:3").id))
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 20 and len(set(ids)) == 1
    assert waiting(jobs) == [f"{ids[0]}_1"]


@pytest.mark.parametrize("ending", [Ending("done", result={}), Ending("failed", error="x")], ids=["done", "failed"])
def test_what_was_asked_while_it_ran_follows_once(jobs: Jobs, ending: Ending) -> None:
    first = jobs.start("wait", {"n": 0}, unique="clip:3")
    attempt = begin(jobs, first.id)
    assert {jobs.start("wait", {"n": n}, unique="clip:3").id for n in range(1, 9)} == {first.id}
    assert lifecycle.finish(jobs.connection, first.id, attempt, ending)
    assert lifecycle.finish(jobs.connection, first.id, attempt, ending), "its repetition changes nothing"
    second, _ = jobs.records.list()
    assert (second.status, second.request) == ("queued", {"n": 8})
    assert jobs.start("wait", {"n": 9}, unique="clip:3").id == second.id
    assert lifecycle.finish(jobs.connection, second.id, begin(jobs, second.id), ending)
    assert len(jobs.records.list()) == 2
    assert jobs.start("wait", unique="clip:3").id not in {first.id, second.id}


def test_a_cancelled_job_is_followed_only_by_what_is_asked_afterwards(jobs: Jobs) -> None:
    first = jobs.start("wait", {"n": 0}, unique="clip:3")
    attempt = begin(jobs, first.id)
    jobs.start("wait", {"n": 1}, unique="clip:3")
    assert cancel(jobs.settings, first.id).status == "running"
    lifecycle.finish(jobs.connection, first.id, attempt, Ending("cancelled"))
    assert [one.status for one in jobs.records.list()] == ["cancelled"]

    second = jobs.start("wait", {"n": 2}, unique="clip:3")
    attempt = begin(jobs, second.id)
    cancel(jobs.settings, second.id)
    jobs.start("wait", {"n": 3}, unique="clip:3")
    lifecycle.finish(jobs.connection, second.id, attempt, Ending("cancelled"))
    third = jobs.records.list()[0]
    assert (third.status, third.request) == ("queued", {"n": 3})


def test_a_queued_job_is_cancelled_at_once_and_can_be_started_again(jobs: Jobs) -> None:
    first = jobs.start("wait", {"n": 1}, project=3, unique="clip:3")
    assert cancel(jobs.settings, first.id).status == "cancelled"
    assert cancel(jobs.settings, first.id).status == "cancelled"
    assert waiting(jobs) == []
    again = retry(jobs.settings, first.id)
    assert again.id != first.id
    assert (again.kind, again.title, again.project, again.request) == ("wait", first.title, 3, {"n": 1})
    assert work.wait(first.id, {}) == {}, "a message that comes late does nothing"
    assert jobs.records.get(first.id).status == "cancelled"


def test_an_older_attempt_changes_nothing_any_more(jobs: Jobs) -> None:
    made = jobs.start("wait")
    old = QueuedJob(jobs.connection, made.id, begin(jobs, made.id), jobs.settings.home / "jobs" / made.id)
    old.log("mine")
    lifecycle.recover(jobs.connection, made.id, "1", "its process died")
    with pytest.raises(JobLost):
        old.check()
    new = Fence(jobs.connection, made.id, begin(jobs, made.id))
    for late in (lambda: old.progress(1, 2, "x"), lambda: old.log("x"), lambda: old.point(x=1), old.check, old.flush):
        with pytest.raises(JobLost):
            late()
    assert not lifecycle.finish(jobs.connection, made.id, 1, Ending("done", result={}))
    assert new.set({"done": 7}) is Standing.GOOD
    record = jobs.records.get(made.id)
    assert (record.status, record.done, record.attempt) == ("running", 7, 2)
    assert jobs.records.log_lines(made.id) == ["mine", "its process died"]
    assert jobs.records.points(made.id) == []


def test_an_overtaken_message_is_not_begun(jobs: Jobs) -> None:
    made = jobs.start("wait")
    lifecycle.recover(jobs.connection, made.id, "1", "lost")
    assert lifecycle.begin(jobs.connection, made.id, Owner.current(), f"{made.id}_1") is None
    assert lifecycle.begin(jobs.connection, made.id, Owner.current(), f"{made.id}_2") == 1
    assert lifecycle.begin(jobs.connection, made.id, Owner.current(), f"{made.id}_2") is None
    assert lifecycle.recover(jobs.connection, made.id, "1", "an old loss") is None


def test_progress_is_written_five_times_a_second_and_new_steps_at_once(jobs: Jobs) -> None:
    made = jobs.start("wait")
    job = QueuedJob(jobs.connection, made.id, begin(jobs, made.id), jobs.settings.home / "jobs" / made.id)
    writes: list[Any] = []
    real = job._fence.set
    job._fence.set = lambda fields: (writes.append(dict(fields)), real(fields))[1]  # type: ignore[method-assign]
    for step in range(500):
        job.progress(step, 500, "many")
    assert len(writes) <= 3
    job._named -= 1
    job.progress(500, 500, "saving")
    assert jobs.records.get(made.id).what == "saving"
    cancel(jobs.settings, made.id)
    with pytest.raises(JobCancelled):
        job.check()


def test_a_long_log_keeps_its_numbers(jobs: Jobs) -> None:
    made = jobs.start("wait")
    fence = Fence(jobs.connection, made.id, begin(jobs, made.id))
    for begun in range(0, MOST_LOG_LINES + 1000, 1000):
        fence.log([f"line {n}" for n in range(begun, begun + 1000)])
    lines, end = jobs.records.log_page(made.id)
    assert (len(lines), lines[0], end) == (MOST_LOG_LINES, "line 1000", MOST_LOG_LINES + 1000)
    fence.log(["new"])
    assert jobs.records.log_lines(made.id, after=end) == ["new"]
    assert jobs.records.log_lines(made.id, after=end - 1) == [lines[-1], "new"]


def test_only_the_newest_ended_jobs_are_kept(jobs: Jobs) -> None:
    made = [jobs.start("count") for _ in range(6)]
    for one in made[:5]:
        cancel(jobs.settings, one.id)
    lifecycle.note(jobs.connection, made[0].id, "x")
    lifecycle.trim(jobs.connection, keep=2)
    assert [one.id for one in jobs.records.list()] == [made[5].id, made[4].id, made[3].id]
    assert not jobs.connection.keys(f"tator:job:{made[0].id}*")


def test_another_machines_worker_is_judged_by_its_heartbeat(jobs: Jobs) -> None:
    now = [0.0]
    sweeper = Sweeper(jobs.connection, clock=lambda: now[0])
    made = jobs.start("wait")
    jobs.connection.lpop(job_queue(jobs.connection).key)
    owner = Owner("far", "another machine", 1, 0.0)
    assert lifecycle.begin(jobs.connection, made.id, owner) == 1
    for beats in range(5):
        jobs.connection.hset(f"tator:job:{made.id}", "beat", beats)
        assert sweeper.sweep() == []
        now[0] += 25
    assert sweeper.sweep() == []
    now[0] += 31
    assert sweeper.sweep() == [made.id]
    assert waiting(jobs) == [f"{made.id}_2"]


def test_a_message_that_vanished_is_sent_again(jobs: Jobs) -> None:
    now = [0.0]
    sweeper = Sweeper(jobs.connection, clock=lambda: now[0])
    made = jobs.start("wait")
    assert sweeper.sweep() == []
    jobs.connection.delete(job_queue(jobs.connection).key)
    assert sweeper.sweep() == []
    now[0] += 16
    assert sweeper.sweep() == [made.id]
    assert waiting(jobs) == [f"{made.id}_2"]
    assert sweeper.sweep() == []


def test_a_local_job_needs_no_redis(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    job = LocalJob(Settings(home=tmp_path), "clip-local", lambda *said: told.append(said))
    job.progress(1, 2, "fitting")
    job.check()
    job.log("x")
    job.point(step=1, loss=float("inf"))
    assert told == [(1, 2, "fitting")]
    assert job.points == [{"step": 1, "loss": None}]
    assert job.folder == tmp_path / "jobs" / "clip-local" and job.folder.is_dir()


def test_the_newest_of_a_kind_is_found_behind_hundreds_of_others(jobs: Jobs) -> None:
    assert jobs.records.newest("clip", 3) is None
    for kind, project in [("clip", 3), ("clip", 3), ("clip", 31), ("clip", None), *[("warm", 3)] * 9]:
        made = start(jobs.settings, kind, {}, project=project, title=kind, function="tests.jobs.work.count")
        if (kind, project) == ("clip", 3):
            wanted = made
    assert jobs.records.newest("clip", 3) == wanted and jobs.records.newest("clip", 4) is None
