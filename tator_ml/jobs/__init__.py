"""Jobs: started here, run by workers, seen everywhere.

RQ carries the messages; what a job is and how it stands is kept in records of our own, which outlive RQ's.

- ``connection``: the Redis in use and the queue on it.
- ``records``: how a job stands, its log and its curve, for whoever wants to see.
- ``order``: what a job is to do.
- ``device``: which queue it goes to.
- ``lifecycle``: the steps of a job from queued to its end, each one transaction.
- ``fence``: what only the current attempt of a job may write; ``owner``: the process that has it.
- ``queue``: start, cancel, retry.
- ``worker`` and ``horse``: the process that takes jobs, and the one that each job runs in.
- ``known``: which functions a worker calls at all; ``ping``: the smallest one, for ``tator doctor``.
- ``priority``: work stays behind everything else on the same cores; ``room``: waits while Redis takes no writes.
- ``sweep``: finds jobs whose process died, and puts them back in the queue.

The job's own side (progress, log, cancel) is ``training.job``. Arguments are JSON, never pickles.
"""

from tator_ml.jobs.connection import connect_redis
from tator_ml.jobs.ping import ping_worker
from tator_ml.jobs.queue import KINDS, cancel, retry, start
from tator_ml.jobs.records import JobError, JobRecord, JobRecords
from tator_ml.jobs.worker import run_worker

__all__ = [
    "KINDS",
    "JobError",
    "JobRecord",
    "JobRecords",
    "cancel",
    "connect_redis",
    "ping_worker",
    "retry",
    "run_worker",
    "start",
]
