"""``make demo`` as a process: Ctrl-C, starting twice, a part that fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from demo.environment import ENVIRONMENT
from demo.label_studio import LabelStudio, StudioSettings
from tator_sdk.settings import Settings
from tator_sdk.studio import open_studio

pytestmark = [pytest.mark.studio, pytest.mark.alone, pytest.mark.timeout(400)]


def start(home: Path, **environment: str) -> subprocess.Popen[str]:
    if not (ENVIRONMENT / "bin" / "label-studio").exists():
        pytest.skip("Label Studio is not installed: `make test` builds its environment")
    return subprocess.Popen(
        [sys.executable, "-m", "demo"],
        env={**os.environ, "TATOR_HOME": str(home), "TATOR_PORT": "19490", "COLUMNS": "200", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(__file__).parents[2],
        # a shell in the background ignores Ctrl-C, and so would everything started from it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(said)


def left_behind(home: Path) -> list[str]:
    """Command lines of processes that know the home."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ", "status"]):
        words = [*(process.info["cmdline"] or []), *(process.info["environ"] or {}).values()]
        mine = any(str(home) in word for word in words) and process.pid != os.getpid()
        if mine and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(" ".join(process.info["cmdline"] or []))
    return found


@pytest.mark.faults
def test_ctrl_c_then_a_quick_second_start_that_doubles_nothing(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path_factory.mktemp("demo")
    monkeypatch.delenv("TATOR_HOME")
    for turn in range(2):
        begun = time.monotonic()
        process = start(home)
        try:
            said = until(process, "Ctrl-C stops everything")
            took = time.monotonic() - begun
            until(process, "Three things to try")
        finally:
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=60)
        assert process.returncode == 130 and "stopped" in rest, rest
        assert left_behind(home) == []
        if turn == 1:
            assert took < 20, f"a second start took {took:.0f} s:\n{said}"
            assert "tasks imported" not in said
    with LabelStudio(StudioSettings(home=home / "label-studio", port=18480)) as running:
        settings = Settings(label_studio_url=running.url, label_studio_api_key=running.personal_access_token())
        studio = open_studio(settings)
        (project,) = studio.projects.list()
        assert len(list(studio.tasks.list(project=project.id))) == 24
        assert len(studio.ml.list(project=project.id)) == 1


@pytest.mark.faults
def test_a_failing_part_is_one_sentence_and_leaves_nothing(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path_factory.mktemp("failing")
    monkeypatch.delenv("TATOR_HOME")
    process = start(home, TATOR_SEGMENTER="sam1-vit_b", TATOR_OFFLINE="true")
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "sam_vit_b_01ec64.pth" in said and "Traceback" not in said, said
    assert left_behind(home) == []
