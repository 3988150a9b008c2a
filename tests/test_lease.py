"""Jobs stand aside while clicks are answered."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tator_ml.running import lease
from tator_ml.running.lease import Bystander, ClickLease


def seconds_of(bystander: Bystander) -> float:
    begun = time.monotonic()
    bystander.stand_aside()
    return time.monotonic() - begun


def test_a_job_waits_while_a_click_is_answered_and_a_moment_longer(tmp_path: Path) -> None:
    clicks, job = ClickLease(tmp_path, "cpu"), Bystander(tmp_path)
    assert seconds_of(job) < 0.05
    ended: list[float] = []

    def click() -> None:
        with clicks.held():
            time.sleep(0.3)
        ended.append(time.monotonic())

    thread = threading.Thread(target=click)
    thread.start()
    time.sleep(0.05)
    job.stand_aside()
    thread.join()
    assert lease.LINGER_SECONDS - 0.02 <= time.monotonic() - ended[0] < lease.LINGER_SECONDS + 0.2
    assert seconds_of(job) < 0.05


def test_the_lease_is_held_until_the_last_of_several_clicks_has_ended(tmp_path: Path) -> None:
    clicks, job = ClickLease(tmp_path, "cuda:0"), Bystander(tmp_path)
    first, second = clicks.held(), clicks.held()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert seconds_of(job) == pytest.approx(lease.MOST_ASIDE_SECONDS, abs=0.2)  # and a step comes to its turn
    second.__exit__(None, None, None)
    assert seconds_of(job) < lease.LINGER_SECONDS + 0.1


def test_an_engine_that_was_killed_during_a_click_holds_nothing_up_for_long(tmp_path: Path) -> None:
    script = f"""
import os, pathlib
from tator_ml.running.lease import ClickLease
lease = ClickLease(pathlib.Path({str(tmp_path)!r}), "cpu")
held = lease.held()
held.__enter__()
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    job = Bystander(tmp_path)
    job.stand_aside()  # looks, and waits its turn
    assert 0 < job._until() - time.monotonic() <= lease.CLICK_SECONDS
    ClickLease(tmp_path, "cpu")  # the engine is started again
    assert seconds_of(job) < 0.05


def test_clicks_of_another_host_hold_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clicks = ClickLease(tmp_path, "cpu")
    monkeypatch.setattr(lease, "this_host", lambda: "0123456789ab")
    with clicks.held():
        assert seconds_of(Bystander(tmp_path)) < 0.05


def test_without_any_engine_nothing_is_waited_for(tmp_path: Path) -> None:
    assert seconds_of(Bystander(tmp_path / "run")) < 0.05


def test_two_devices_of_a_host_have_a_file_each(tmp_path: Path) -> None:
    first, second, job = ClickLease(tmp_path, "cuda:0"), ClickLease(tmp_path, "cuda:1"), Bystander(tmp_path)
    with first.held(), second.held():
        assert seconds_of(job) > 1
    assert len(list(tmp_path.glob("*.lease"))) == 2
