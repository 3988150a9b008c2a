"""Jobs stand behind everything else on the same cores, as far as the setting says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tator_ml.jobs import priority, worker
from tator_sdk.settings import Settings


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, object]:
    """What this process, were it a session's first, would have asked of the system."""
    asked: dict[str, object] = {"nice": 0, "session": tmp_path / "autogroup"}
    monkeypatch.setattr(os, "nice", lambda more: asked.update(nice=more))
    monkeypatch.setattr(os, "getsid", lambda _: os.getpid())
    monkeypatch.setattr(priority, "AUTOGROUP", asked["session"])
    return asked


@pytest.mark.parametrize("niceness", [19, 5])
def test_a_process_and_its_session_stand_behind_others(given: dict[str, object], niceness: int) -> None:
    priority.run_behind_others(niceness)
    assert given["nice"] == niceness
    assert isinstance(given["session"], Path) and given["session"].read_text() == str(niceness)


def test_nothing_is_asked_for_with_0(given: dict[str, object]) -> None:
    priority.run_behind_others(0)
    assert given["nice"] == 0 and isinstance(given["session"], Path) and not given["session"].exists()


@pytest.mark.parametrize(("set_to", "stands"), [(None, 19), ("0", 0), ("7", 7)], ids=["default", "0", "7"])
def test_a_worker_stands_as_the_setting_says(monkeypatch: pytest.MonkeyPatch, set_to: str | None, stands: int) -> None:
    class Begun(Exception):
        """It would take jobs now."""

    def begin(_: Settings) -> None:
        raise Begun

    if set_to is not None:
        monkeypatch.setenv("TATOR_JOB_NICENESS", set_to)
    asked: list[int] = []
    monkeypatch.setattr(worker, "run_behind_others", asked.append)
    monkeypatch.setattr(worker, "build_worker", begin)
    with pytest.raises(Begun):
        worker.run_worker(Settings())
    assert asked == [stands]
