"""RQ's job, kept to what Tator knows: what lies in Redis names a function, and must not name just any."""

from __future__ import annotations

from typing import Any

from rq.job import Job

from tator_ml.jobs.ping import ping
from tator_ml.jobs.queue import KINDS
from tator_ml.jobs.records import JobError


class KnownJob(Job):
    """A job that calls a function of Tator's, and no call-backs.

    RQ imports whatever dotted name a message has. Whoever can write to Redis, the holder of a shared one's password
    too, can start jobs; running any function of any library on every worker is another matter.

    Attributes:
        functions: dotted names of what may be called.
    """

    functions = frozenset({*KINDS.values(), f"{ping.__module__}.{ping.__name__}"})
    success_callback = failure_callback = stopped_callback = None

    def _execute(self) -> Any:
        if self.func_name not in self.functions or self.instance is not None:
            raise JobError(f"{str(self.func_name)[:200]!r} is no job of Tator's, so it was not called.")
        return super()._execute()


def known_jobs(functions: tuple[str, ...]) -> type[KnownJob]:
    """The class of jobs that may call these functions too."""
    return type("KnownJob", (KnownJob,), {"functions": KnownJob.functions | frozenset(functions)})
