"""What somebody writes into Redis by hand: no function but Tator's own is called, and nothing is unpickled."""

from __future__ import annotations

import json
import pickle
import stat
from pathlib import Path

import pytest
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from tator_ml.jobs import KINDS
from tator_ml.jobs.connection import job_queue
from tator_ml.jobs.known import KnownJob, known_jobs
from tator_ml.jobs.records import JobError
from tator_sdk.files import private_folder
from tator_sdk.settings import Settings
from tests.jobs.conftest import Jobs, until

FOREIGN = (
    "os.system", "subprocess.check_output", "builtins.eval", "shutil.rmtree", "training.sweep.shutil.rmtree",
    "training.job.Path.unlink", "tator_ml.jobs.ping", "tests.jobs.work.write", "", "pickle.loads",
    "training.clip.job.run ",
)  # fmt: skip


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return Path.touch, (self.path,)


def test_only_what_tator_knows_is_called(jobs: Jobs, tmp_path: Path) -> None:
    queue = job_queue(jobs.connection)
    for name in FOREIGN:
        message = queue.enqueue(name or "os.system", str(tmp_path / "hit"), job_id=f"foreign_{abs(hash(name))}")
        found = KnownJob.fetch(message.id, connection=jobs.connection, serializer=JSONSerializer)
        with pytest.raises(JobError, match="no job of Tator's"):
            found.perform()
    assert "training.clip.job.run" in KnownJob.functions and set(KINDS.values()) < KnownJob.functions
    assert known_jobs(("mine.run",)).functions - KnownJob.functions == {"mine.run"}


def test_no_call_back_is_called(jobs: Jobs, tmp_path: Path) -> None:
    message = job_queue(jobs.connection).enqueue("tator_ml.jobs.ping.ping", 1.0)
    for what in ("success", "failure", "stopped"):
        jobs.connection.hset(f"rq:job:{message.id}", f"{what}_callback_name", "os.system")
    found = KnownJob.fetch(message.id, connection=jobs.connection, serializer=JSONSerializer)
    assert found.success_callback is None and found.failure_callback is None and found.stopped_callback is None
    plain = Job.fetch(message.id, connection=jobs.connection, serializer=JSONSerializer)
    assert plain.success_callback is not None, "which RQ's own job would have called"


@pytest.mark.attack
def test_a_real_worker_refuses_what_is_not_its_own(jobs: Jobs, tmp_path: Path) -> None:
    """A shell command, a pickle, a call-back, a record of ours that names a foreign function; then an honest job."""
    connection, hit = jobs.connection, tmp_path / "hit"
    queue = Queue("tator", connection=connection, serializer=JSONSerializer)
    shell = queue.enqueue("os.system", f"touch {hit}")
    pickled = queue.enqueue("os.system", "true")
    connection.hset(f"rq:job:{pickled.id}", "data", pickle.dumps(("os.system", None, (f"touch {hit}",), {})))
    trapped = queue.enqueue("os.system", "true")
    connection.hset(f"rq:job:{trapped.id}", "data", pickle.dumps(Trap(hit)))
    called_back = queue.enqueue("tator_ml.jobs.ping.ping", 1.0)
    connection.hset(f"rq:job:{called_back.id}", "success_callback_name", "tests.attack.test_redis_messages.callback")
    record = jobs.start("count", {"steps": 1})
    connection.hset(f"tator:job:{record.id}", "function", "os.system")
    connection.hset(f"rq:job:{record.id}_1", "data", json.dumps(["os.system", None, [f"touch {hit}"], {}]))
    jobs.worker()
    honest = jobs.start("count", {"steps": 2})
    assert jobs.ends(honest.id, 90).status == "done"
    ended = until(lambda: jobs.ends(record.id, 90))
    assert ended.status == "failed" and "no job of Tator's" in (ended.error or "")
    for message in (shell, pickled, trapped):
        assert Job.fetch(message.id, connection=connection, serializer=JSONSerializer).is_failed
    assert not hit.exists()


def test_home_is_its_owners_alone(tmp_path: Path) -> None:
    private_folder(tmp_path / "a" / "home")
    assert stat.S_IMODE((tmp_path / "a" / "home").stat().st_mode) == 0o700
    (tmp_path / "shared").mkdir(mode=0o750)
    private_folder(tmp_path / "shared")
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o750, "what an administrator made stays so"


def test_secrets_and_sockets_are_their_owners_alone(tmp_path: Path) -> None:
    from tator_ml.engine.wire import listen, shared_key
    from tator_ml.running.redis_server import redis_command
    from tator_ml.web.access import secret_of

    settings = Settings(home=tmp_path)
    secret_of(tmp_path)
    shared_key(settings)
    for name in ("secret", "run/engine.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    listener = listen(settings)
    try:
        assert not stat.S_IMODE((tmp_path / "run" / "engine.sock").stat().st_mode) & 0o022
    finally:
        listener.close()
    command = redis_command(settings)
    assert command[command.index("--port") + 1] == "0" and command[command.index("--unixsocketperm") + 1] == "700"
