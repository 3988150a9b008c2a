"""Jobs through real worker processes: done, failed, cancelled, killed."""

from __future__ import annotations

import functools
import os
import signal
import time

import psutil
import pytest

from tator_ml.jobs import cancel, connect_redis, ping_worker
from tator_ml.running.processes import ended
from tator_ml.web.control import job_checks
from tests.jobs.conftest import Jobs, serving_redis, until


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and not ended(psutil.Process(pid))


def horse_of(jobs: Jobs, nth: int) -> int:
    """Process of the nth attempt of ``work.wait``, from 0."""
    return int(until(lambda: jobs.diary("begin")[nth:])[0][1])


def test_jobs_end_as_they_should(jobs: Jobs) -> None:
    good = jobs.start("count", {"steps": 50})
    sentence = jobs.start("fail", {"how": "sentence"})
    bug = jobs.start("fail", {"how": "bug"})
    slow = jobs.start("fail", {"how": "timeout"}, timeout_seconds=1)
    missing = jobs.start("nowhere")
    worker = jobs.worker()

    done = jobs.ends(good.id)
    assert done.status == "done" and done.error is None
    assert done.result == {"sum": 50, "home": str(jobs.settings.home)}
    assert (done.done, done.total, done.what, done.attempt) == (50, 50, "counting", 1)
    assert done.created <= (done.started or 0) <= (done.ended or 0)
    assert jobs.records.log_lines(good.id) == ["counting"]
    points = jobs.records.points(good.id)
    assert len(points) == 50 and points[:2] == [{"step": 0, "loss": None}, {"step": 1, "loss": 1.0}]

    failed = jobs.ends(sentence.id)
    assert (failed.status, failed.attempt) == ("failed", 1)
    assert failed.error == "Project 3 has no annotations; label some first."

    failed = jobs.ends(bug.id)
    assert failed.error is not None and failed.error.startswith("An unexpected error") and failed.attempt == 1
    assert jobs.records.log_lines(bug.id)[-1] == "RuntimeError: a bug"

    assert "its limit of 1 s" in (jobs.ends(slow.id).error or "")
    assert "could not be run" in (jobs.ends(missing.id).error or "")
    assert 0 <= ping_worker(jobs.settings) < 20

    worker.terminate()
    assert worker.wait(10) == 0
    assert b"pickle" not in (jobs.settings.home / "worker.log").read_bytes()


def test_a_job_does_not_go_on_from_anothers_folder(jobs: Jobs) -> None:
    made = jobs.start("checkpointed", {"die_at": []})
    folder = jobs.settings.home / "jobs" / made.id  # of a job whose record is forgotten: the id was free again
    folder.mkdir(parents=True)
    (folder / "step").write_text("7")
    jobs.worker()
    assert jobs.ends(made.id).result == {"began_at": 0}
    (before,) = folder.parent.glob(f"{made.id}.before-*")
    assert (before / "step").read_text() == "7" and (folder / "step").read_text() == "10"


def test_the_doctor_takes_a_worker_that_trains_for_none_that_is_missing(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tator_ml.web.control.ping_worker", functools.partial(ping_worker, seconds=0.3))
    assert [(one.level, one.said) for one in job_checks(jobs.settings)][1:] == [("bad", "none answers")]
    jobs.worker()
    jobs.start("wait", title="class head of project 3")
    horse_of(jobs, 0)
    (found,) = [one for one in job_checks(jobs.settings) if one.name == "worker"]
    assert (found.level, found.said) == ("hint", "works on 'class head of project 3'")


def test_cancel_and_follow_up_through_a_worker(jobs: Jobs) -> None:
    jobs.worker()
    first = jobs.start("wait", {"n": 0}, unique="clip:3")
    horse_of(jobs, 0)
    begun = time.monotonic()
    cancel(jobs.settings, first.id)
    assert jobs.ends(first.id).status == "cancelled"
    assert time.monotonic() - begun < 2

    second = jobs.start("wait", {"n": 1}, unique="clip:3")
    horse_of(jobs, 1)
    assert {jobs.start("wait", {"n": n}, unique="clip:3").id for n in (2, 3, 4)} == {second.id}
    jobs.go()
    assert jobs.ends(second.id).result == {"n": 1}
    third = jobs.records.list()[0]
    assert jobs.ends(third.id).result == {"n": 4}
    assert len(jobs.records.list()) == 3
    assert [entry[2] for entry in jobs.diary("end")] == ["1", "4"]


@pytest.mark.faults
def test_a_dying_process_is_replaced_and_given_up_after_the_third(jobs: Jobs) -> None:
    jobs.worker()
    twice = jobs.start("checkpointed", {"die_at": [3, 6]})
    often = jobs.start("checkpointed", {"die_at": [1, 2, 3, 4]})
    record = jobs.ends(twice.id)
    assert (record.status, record.attempt, record.result) == ("done", 3, {"began_at": 7})
    log = jobs.records.log_lines(twice.id)
    lost = ["its process died", "attempt 2 begins", "from 4", "its process died", "attempt 3 begins", "from 7"]
    assert log == ["from 0", *lost]
    record = jobs.ends(often.id)
    assert (record.status, record.attempt) == ("failed", 3)
    assert record.error is not None and record.error.startswith("Its process died 3 times")


def test_a_killed_worker_takes_its_job_down_and_the_next_one_goes_on(jobs: Jobs) -> None:
    worker = jobs.worker()
    made = jobs.start("wait", {"n": 1})
    horse = horse_of(jobs, 0)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait(10)
    until(lambda: not alive(horse), 5)
    assert jobs.records.get(made.id).status == "running"

    begun = time.monotonic()
    jobs.worker()
    assert horse_of(jobs, 1) != horse
    assert time.monotonic() - begun < 60
    jobs.go()
    record = jobs.ends(made.id)
    assert (record.status, record.attempt) == ("done", 2)
    assert len(jobs.diary("end")) == 1


@pytest.mark.faults
def test_a_living_worker_takes_over_from_a_killed_one(jobs: Jobs) -> None:
    first = jobs.worker()
    made = jobs.start("wait", {"n": 1})
    horse_of(jobs, 0)
    jobs.worker()
    until(lambda: jobs.connection.scard("rq:workers") == 2)
    time.sleep(1)  # it has swept once, while all was well
    os.kill(first.pid, signal.SIGKILL)
    begun = time.monotonic()
    horse_of(jobs, 1)
    assert time.monotonic() - begun < 60
    jobs.go()
    assert jobs.ends(made.id).attempt == 2


def test_two_workers_never_run_one_job_twice(jobs: Jobs) -> None:
    jobs.go()
    jobs.worker()
    jobs.worker()
    made = [jobs.start("wait", {"n": n}) for n in range(4)]
    assert {jobs.ends(one.id).status for one in made} == {"done"}
    assert sorted(entry[0] for entry in jobs.diary("begin")) == sorted(one.id for one in made)


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGTERM, id="term"), pytest.param(signal.SIGINT, id="int", marks=pytest.mark.faults)],
)
def test_a_stopped_worker_puts_its_job_back(jobs: Jobs, number: signal.Signals) -> None:
    worker = jobs.worker()
    made = jobs.start("wait")
    horse = horse_of(jobs, 0)
    worker.send_signal(number)
    assert worker.wait(10) == 0
    assert not alive(horse)
    record = jobs.records.get(made.id)
    assert (record.status, record.attempt, record.what) == ("queued", 1, "waiting to go on")
    assert jobs.connection.hget(f"tator:job:{made.id}", "lost") == b"0", "stopping is not dying"


def test_a_running_job_whose_worker_is_dead_can_be_cancelled(jobs: Jobs) -> None:
    worker = jobs.worker()
    made = jobs.start("wait")
    horse = horse_of(jobs, 0)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait(10)
    until(lambda: not alive(horse), 5)
    assert cancel(jobs.settings, made.id).status == "cancelled"


@pytest.mark.faults
def test_a_job_that_never_looks_is_ended_all_the_same(jobs: Jobs) -> None:
    jobs.worker(
        "import tator_ml.jobs.worker as worker; from tator_sdk.settings import Settings;"
        "worker.CANCEL_PATIENCE_SECONDS = 0; worker.MONITORING_SECONDS = 1; worker.run_worker(Settings())"
    )
    made = jobs.start("fail", {"how": "timeout"})
    until(lambda: jobs.records.get(made.id).status == "running")
    assert cancel(jobs.settings, made.id).status == "running"
    assert jobs.ends(made.id, 10).status == "cancelled"


def test_jobs_outlive_a_restart_of_redis(tmp_path_factory: pytest.TempPathFactory, jobs: Jobs) -> None:
    settings = jobs.settings.model_copy(update={"redis_url": None, "home": tmp_path_factory.mktemp("r")})
    with serving_redis(settings), connect_redis(settings) as connection:
        own = Jobs(settings, connection, jobs.workers)
        own.worker()
        made = own.start("wait", {"n": 1})
        horse = horse_of(own, 0)
        until(lambda: connection.info("persistence")["aof_buffer_length"] == 0)  # all is in its append-only file
        own_socket = settings.home / "run" / "redis.sock"
    own_socket.unlink(missing_ok=True)
    time.sleep(1)
    with serving_redis(settings), connect_redis(settings) as connection:
        own = Jobs(settings, connection, jobs.workers)
        own.go()
        record = own.ends(made.id)
        assert (record.status, record.attempt) == ("done", 1)
        assert int(own.diary("end")[0][1]) == horse
        again = own.start("count", {"steps": 1})
        assert own.ends(again.id).status == "done", "the worker is there, too"
