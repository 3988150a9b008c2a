"""Jobs for the tests, as a worker calls them: by dotted name, with the id and the request."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings
from training.job import Job, run_job


def count(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """Takes steps, with a log and a curve."""

    def work(job: Job, settings: Settings) -> dict[str, Any]:
        job.log("counting")
        for step in range(request["steps"]):
            job.progress(step + 1, request["steps"], "counting")
            job.point(step=step, loss=float("nan") if step == 0 else 1 / step)
        return {"sum": request["steps"], "home": str(settings.home)}

    return run_job(job_id, work)


def wait(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """Waits until a file appears; writes down each attempt's beginning and end, and its process."""

    def work(job: Job, settings: Settings) -> dict[str, Any]:
        diary = settings.home / "diary"
        write(diary, f"begin {job.id} {os.getpid()} {request.get('n', '')}")
        step = 0
        while not (settings.home / "go").exists():
            job.progress(step, 0, "waiting")
            step += 1
            time.sleep(0.05)
        job.check()
        write(diary, f"end {job.id} {os.getpid()} {request.get('n', '')}")
        return {"n": request.get("n")}

    return run_job(job_id, work)


def checkpointed(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """Goes on from its checkpoint; kills its own process at the steps it is told to, once each."""

    def work(job: Job, settings: Settings) -> dict[str, Any]:
        checkpoint = job.folder / "step"
        begin = int(checkpoint.read_text()) if checkpoint.exists() else 0
        job.log(f"from {begin}")
        for step in range(begin, 10):
            checkpoint.write_text(str(step + 1))
            if step in request["die_at"]:
                os.kill(os.getpid(), signal.SIGKILL)
        return {"began_at": begin}

    return run_job(job_id, work)


def fail(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """Fails as it is told to."""

    def work(job: Job, settings: Settings) -> dict[str, Any]:
        if request["how"] == "sentence":
            raise TatorError("Project 3 has no annotations; label some first.")
        if request["how"] == "timeout":
            time.sleep(30)
        raise RuntimeError("a bug")

    return run_job(job_id, work)


def fill(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """Writes as many bytes as it is told to into its folder."""

    def work(job: Job, settings: Settings) -> dict[str, Any]:
        (job.folder / "large").write_bytes(bytes(request["bytes"]))
        return {}

    return run_job(job_id, work)


def write(path: Path, line: str) -> None:
    with path.open("a") as stream:
        stream.write(line + "\n")
