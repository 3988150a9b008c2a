"""A real Redis and real workers; the fixtures of them, which tests of other folders use too, are in fixtures.py."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from tator_ml.jobs import JobRecord, JobRecords, start
from tator_ml.running.redis_server import redis_answers, redis_command
from tator_sdk.settings import Settings
from tests.job_functions import job_functions

ROOT = Path(__file__).parents[2]


def until(true: Callable[[], Any], seconds: float = 30) -> Any:
    """What ``true`` gives as soon as it gives something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if given := true():
            return given
        time.sleep(0.03)
    raise AssertionError(f"not within {seconds} s")


@contextlib.contextmanager
def serving_redis(settings: Settings) -> Iterator[None]:
    """The embedded Redis of ``settings.home``; ended with -9."""
    server = subprocess.Popen(redis_command(settings), stdout=subprocess.DEVNULL)
    try:
        until(lambda: redis_answers(settings))
        yield
    finally:
        server.kill()
        server.wait(10)


@dataclass
class Jobs:
    """Settings, records and workers of one test."""

    settings: Settings
    connection: redis.Redis
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def records(self) -> JobRecords:
        return JobRecords(self.connection)

    def start(self, function: str, request: dict[str, Any] | None = None, **how: Any) -> JobRecord:
        how = {"title": f"test {function}", **how}
        return start(self.settings, function, request or {}, function=f"tests.jobs.work.{function}", **how)

    def kill_workers(self) -> None:
        """End all workers that run, and with them their work-horses."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait(10)

    def worker(self, code: str | None = None, **variables: str) -> subprocess.Popen[bytes]:
        """A real worker process: ``tator worker``, or one that runs ``code``; ``variables`` of its environment."""
        environment = {name: value for name, value in os.environ.items() if name != "TATOR_REDIS_URL"}
        environment |= self.settings.environment() | {
            "TATOR_JOB_FUNCTIONS": json.dumps(job_functions()),
            "TATOR_JOB_NICENESS": "0",  # behind other test processes, jobs would never be done
            **variables,
        }
        log = (self.settings.home / "worker.log").open("ab")
        worker = subprocess.Popen(
            [sys.executable, *(["-m", "tator_sdk", "worker"] if code is None else ["-c", code])],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
        )
        log.close()
        self.workers.append(worker)
        return worker

    def ends(self, job_id: str, seconds: float = 30) -> JobRecord:
        """The record once the job has ended."""
        until(lambda: self.records.get(job_id).over, seconds)
        return self.records.get(job_id)

    def diary(self, word: str) -> list[list[str]]:
        """What ``work.wait`` wrote: id, process and number of each beginning or end."""
        path = self.settings.home / "diary"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split(" ")[1:] for line in lines if line.startswith(word)]

    def go(self) -> None:
        """Let ``work.wait`` end."""
        (self.settings.home / "go").touch()
