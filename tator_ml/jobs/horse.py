"""The process that runs one job: ``python -m tator_ml.jobs.horse WORKER QUEUE PARENT``, started by the worker."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

from rq import Queue
from rq.executions import Execution
from rq.serializers import JSONSerializer

from tator_ml.jobs.connection import connect_patiently
from tator_ml.jobs.known import known_jobs
from tator_ml.jobs.worker import MONITORING_SECONDS, TatorWorker
from tator_ml.running.logs import configure_logging
from tator_sdk.settings import Settings

PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """End this process as soon as its parent has ended, however: nothing runs on that nobody watches."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main(worker_name: str, queue_name: str, parent: int) -> None:
    """Run the job that the environment names; what RQ's SpawnWorker does, without a pickle."""
    die_with(parent)
    settings = Settings()
    configure_logging(settings)
    connection = connect_patiently(settings)
    key = TatorWorker.redis_worker_namespace_prefix + worker_name
    known = known_jobs(settings.job_functions)
    worker = TatorWorker.find_by_key(key, connection=connection, job_class=known, serializer=JSONSerializer)
    if worker is None:
        raise SystemExit(f"worker {worker_name} is not registered")
    worker.job_monitoring_interval = MONITORING_SECONDS
    job = known.fetch(os.environ["RQ_JOB_ID"], connection=connection, serializer=JSONSerializer)
    execution = Execution.fetch(os.environ["RQ_EXECUTION_ID"], job.id, connection=connection)
    execution._job = job
    worker.execution = execution
    queue = Queue(queue_name, connection=connection, job_class=known, serializer=JSONSerializer)
    worker.main_work_horse(job, queue)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
