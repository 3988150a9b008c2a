"""The verbs about jobs, and following one."""

from __future__ import annotations

import functools
import io
import threading
import time
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console
from typer.main import get_command

from tator_ml.cli.jobs import follow
from tator_ml.jobs import JobError, cancel, lifecycle
from tator_ml.jobs.owner import Owner
from tator_sdk.cli import load_commands
from tests.jobs import work
from tests.jobs.conftest import Jobs


@functools.cache
def verbs() -> Any:
    return get_command(load_commands())  # once: it takes a second


def tator(*words: str) -> str:
    done = CliRunner().invoke(verbs(), ["jobs", *words], env={"COLUMNS": "120"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_list_show_log_cancel_retry(jobs: Jobs) -> None:
    assert "no jobs yet" in tator("list")
    first = jobs.start("count", {"steps": 5}, project=3, title="Learn [classes]")
    work.count(first.id, first.request)
    second = jobs.start("fail", {"how": "sentence"}, project=4)
    work.fail(second.id, second.request)

    listed = tator("list").splitlines()
    assert [line.split()[0] for line in listed] == ["id", second.id, first.id]
    assert "Learn [classes]" in listed[2] and "5/5" in listed[2] and "done" in listed[2]
    assert second.id not in tator("list", "--project", "3")

    shown = tator("show", first.id[:-1])
    assert first.id in shown and '"sum": 5' in shown and '{"steps": 5}' in shown
    assert "Project 3 has no annotations" in tator("show", second.id)
    assert tator("log", first.id) == tator("log", first.id, "--follow") == "counting\n"

    assert "had ended already: done" in tator("cancel", first.id)
    tator("retry", first.id)
    third = jobs.records.list()[0]
    assert (third.status, third.request) == ("queued", {"steps": 5})
    assert "is cancelled" in tator("cancel", third.id)
    with pytest.raises(JobError, match="tator jobs list"):
        tator("show", "nothing")


def test_the_list_is_short_unless_all_are_asked_for(jobs: Jobs) -> None:
    for _ in range(25):
        jobs.start("count")
    assert len(tator("list").splitlines()) == 21
    assert len(tator("list", "--all").splitlines()) == 26


def test_following_ends_with_the_job_or_with_ctrl_c(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    console = Console(file=said, width=120)
    made = jobs.start("wait", title="Learn")
    threading.Timer(0.5, lambda: cancel(jobs.settings, made.id)).start()
    assert follow(jobs.settings, made.id, console).status == "cancelled"
    assert "cancelled Learn" in said.getvalue()

    made = jobs.start("wait", title="Learn")
    lifecycle.begin(jobs.connection, made.id, Owner.current())

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    assert follow(jobs.settings, made.id, console).status == "running"
    assert f"tator jobs cancel {made.id}" in said.getvalue()
    assert jobs.records.get(made.id).status == "running"
