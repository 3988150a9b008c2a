"""The worker: takes jobs from the queue, one at a time, each in a process of its own."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import time
from pathlib import Path
from typing import Any, cast

import redis
from rq import Queue
from rq.executions import Execution
from rq.job import Job
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.utils import now
from rq.worker import SpawnWorker

from tator_ml.jobs import lifecycle
from tator_ml.jobs.connection import connect_patiently, job_queue
from tator_ml.jobs.device import queue_names
from tator_ml.jobs.fence import beat
from tator_ml.jobs.known import KnownJob
from tator_ml.jobs.order import parse_message, timeout_sentence
from tator_ml.jobs.owner import Owner
from tator_ml.jobs.priority import run_behind_others
from tator_ml.jobs.sweep import Sweeper
from tator_sdk.settings import Settings

log = logging.getLogger(__name__)

MONITORING_SECONDS = 3
MAINTENANCE_SECONDS = 10
CANCEL_PATIENCE_SECONDS = 60.0
"""How long a job that was asked to stop may go without a check, before its process is ended."""
OVERDUE_PATIENCE_SECONDS = 60.0
"""How long a job may outlive its time limit, which it is told of itself, before its process is ended."""


class TatorWorker(SpawnWorker):
    """RQ's worker with records, quick recovery, and a work-horse that is started without pickles.

    A freshly spawned process for each job, not a forked one: CUDA does not survive a fork.
    """

    job_class = KnownJob
    settings: Settings
    sweeper: Sweeper
    _stop_asked: float | None = None
    _begun = 0.0
    _limit_seconds = 0.0

    def run_maintenance_tasks(self) -> None:
        """Recover lost jobs at the start and every ten seconds; RQ's own cleaning after the start."""
        if self.last_cleaned_at is None:
            # RQ's cleaning drops dead workers from the count by which `tator up` sees that this one has come
            self.last_cleaned_at = cast(None, now())  # RQ types it as nothing but None
        else:
            super().run_maintenance_tasks()
        self._stay_known()
        self.sweeper.sweep()

    def execute_job(self, job: Job, queue: Queue) -> None:
        """As RQ does, after saying whose the job is now."""
        self._stop_asked = None
        lifecycle.claim(self.connection, job.id, Owner.current())
        super().execute_job(job, queue)

    def monitor_work_horse(self, job: Job, queue: Queue, execution: Execution) -> None:
        """As RQ does, but the time limit is held by a clock that nobody sets."""
        self._begun, self._limit_seconds = time.monotonic(), float(job.timeout or 0)
        job.timeout = -1  # RQ's own look at it would end every job of a machine whose clock is put right
        super().monitor_work_horse(job, queue, execution)

    def _dump_worker_config(self) -> bytes:
        return b""  # RQ would hand a pickle to the work-horse

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Start :mod:`tator_ml.jobs.horse` for a job, with this worker's settings in its environment."""
        execution: Any = self.execution
        environment = {
            **os.environ,
            **self.settings.environment(),
            "PYTHONPATH": os.pathsep.join(str(Path(part).absolute()) for part in sys.path),
            "RQ_WORKER_ID": self.name,
            "RQ_JOB_ID": job.id,
            "RQ_EXECUTION_ID": execution.id,
        }
        # -P: only this worker's path, or a file of the folder it was started in could hide a library
        command = [sys.executable, "-P", "-m", "tator_ml.jobs.horse", self.name, queue.name, str(os.getpid())]
        # a process group of its own, so that what the job starts ends with it
        self._horse_pid = os.posix_spawn(sys.executable, command, environment, setpgroup=0)

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """Show life every three seconds; end a job that does not stop when asked. Redis may be away for a moment."""
        try:
            super().maintain_heartbeats(job, execution)
            self._stay_known()
            if self._overdue(OVERDUE_PATIENCE_SECONDS):
                self.kill_horse()
            job_id, _ = parse_message(job.id)
            if job_id and beat(self.connection, job_id):
                self._stop_asked = self._stop_asked or time.monotonic()
                if time.monotonic() - self._stop_asked > CANCEL_PATIENCE_SECONDS:
                    self.kill_horse()
        except (redis.ConnectionError, redis.TimeoutError) as error:
            self.log.warning("Redis does not answer: %s", error)

    def handle_warm_shutdown_request(self) -> None:
        """End the running job's process: it goes back in the queue and on from its checkpoint."""
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        if self.horse_pid:
            self.kill_horse()

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: StartedJobRegistry | None = None,
        exc_string: str = "",
        execution: Execution | None = None,
    ) -> None:
        """After RQ's own bookkeeping, put the job back in the queue or fail it.

        In the work-horse this means that its function could not be loaded: with what a function raises, ``run_job``
        has dealt. In the worker it means that the work-horse is dead.
        """
        super().handle_job_failure(job, queue, started_job_registry, exc_string, execution)
        job_id, delivery = parse_message(job.id)
        if not job_id:
            return
        if self.is_horse:
            last = (exc_string.strip().splitlines() or ["an unknown error"])[-1]
            sentence = f"It could not be run ({last}); `tator jobs log {job_id}` says more."
            lifecycle.recover(self.connection, job_id, delivery, exc_string, failure=sentence)
            return
        lifecycle.recover(
            self.connection,
            job_id,
            delivery,
            "its worker was stopped" if self._stop_requested else "its process died",
            counted=not self._stop_requested,
            failure=timeout_sentence(self._limit_seconds) if self._overdue() else None,
        )

    def _overdue(self, patience_seconds: float = 0.0) -> bool:
        """Whether the job that runs has had its time."""
        return 0 < self._limit_seconds <= time.monotonic() - self._begun - patience_seconds

    def _stay_known(self) -> None:
        """Sign in anew where Redis lost what it knew, or this worker would count for nobody."""
        if not self.connection.sismember(self.redis_workers_keys, self.key):
            self.connection.delete(self.key)
            self.register_birth()  # type: ignore[no-untyped-call]


def build_worker(settings: Settings) -> TatorWorker:
    """A worker on the Redis in use."""
    connection = connect_patiently(settings)
    worker = TatorWorker(
        [job_queue(connection, name) for name in queue_names(settings.device)],
        connection=connection,
        serializer=JSONSerializer,
        # numbers of processes come back, in containers at each start, and a dead worker's name is still taken
        name=f"tator-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}",
        maintenance_interval=MAINTENANCE_SECONDS,
        worker_ttl=MAINTENANCE_SECONDS + 15,  # RQ waits for a job that long less 15 s, then looks round
        job_monitoring_interval=MONITORING_SECONDS,
    )
    worker.settings = settings
    worker.sweeper = Sweeper(connection)
    return worker


def run_worker(settings: Settings) -> None:
    """Work until the process is told to stop; each job runs in a freshly spawned process.

    A core that a click's answer wants too goes to the click: this process and its jobs run at a low priority, the
    lowest by default, from their first import on, which alone made clicks wait for a second.
    """
    run_behind_others(settings.job_niceness)
    level = "DEBUG" if settings.log_level == "debug" else "WARNING"  # RQ tells of each clean-up
    worker = build_worker(settings)
    log.info("takes jobs from %s", ", ".join(queue_names(settings.device)))
    worker.work(with_scheduler=False, logging_level=level)
