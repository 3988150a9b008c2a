"""Records on disk: damaged while Tator was away, and written by processes that are killed with -9."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tator_ml.learning.examples import Examples
from tator_ml.quality.store import QualityStore
from tator_ml.suggestions import Suggestions
from tator_sdk.unfinished import unfinished
from tests.jobs.conftest import ROOT, until
from tests.learning.material import rectangle

STORES: list[Callable[[Path], Any]] = [Suggestions, Examples, QualityStore]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("damage", ["garbage", "cut", "beginning"])
def test_a_damaged_record_is_put_aside_and_a_new_one_begun(
    tmp_path: Path, store: Callable[[Path], Any], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "record.sqlite"
    store(path).close()
    whole = path.read_bytes()
    broken = {"garbage": os.urandom(len(whole)), "cut": whole[:1000], "beginning": bytes(100) + whole[100:]}[damage]
    path.write_bytes(broken)
    opened = store(path)
    opened.close()
    (aside,) = tmp_path.glob("record.sqlite.damaged-*")
    assert aside.read_bytes() == broken, "nothing of it is lost"
    assert "is damaged" in caplog.text and aside.name in caplog.text
    store(path).close()
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1


def test_examples_that_were_begun_anew_are_read_from_label_studio(tmp_path: Path) -> None:
    path = tmp_path / "examples.sqlite"
    examples = Examples(path)
    assert not examples.unread(3)
    examples.close()
    path.write_bytes(b"not a database, whatever it was before" * 100)
    examples = Examples(path)
    assert examples.unread(3), "else the next training would learn from what came since alone"
    examples.close()


def test_a_record_that_breaks_meanwhile_costs_no_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    suggestions = Suggestions(tmp_path / "s.sqlite")
    suggestions._database.execute("DROP TABLE suggestions")
    suggestions.record(1, 2, ["p"], [rectangle("r", "Car")], "v")  # type: ignore[list-item]
    assert "not on record" in caplog.text
    suggestions.close()


WRITING = """
import sys
from pathlib import Path
from tator_ml.learning.examples import Examples
from tator_ml.suggestions import Suggestions
from tests.learning.material import labelled, rectangle
home = Path(sys.argv[1])
suggestions, examples = Suggestions(home / "s.sqlite"), Examples(home / "e.sqlite")
for number in range(100_000):
    suggestions.record(1, number, ["p"], [rectangle("r", "Car")], "v")
    examples.put(1, number, number, "", [labelled("r", "Car")], {("image", 0): "a.png"})
    print(number, flush=True)
"""


def test_a_process_that_is_killed_while_it_writes_loses_nothing_that_it_wrote(tmp_path: Path) -> None:
    known = -1
    for seconds in (0.05, 0.12, 0.2):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITING, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)
        known = max([known, *(int(line) for line in child.stdout.read().split()[:-1])])
        child.wait(10)
        suggestions, examples = Suggestions(tmp_path / "s.sqlite"), Examples(tmp_path / "e.sqlite")
        assert set(range(known + 1)) <= set(suggestions.tasks(1)) and len(examples.known(1)) > known
        suggestions.close()
        examples.close()
        for name in ("s.sqlite", "e.sqlite"):
            assert sqlite3.connect(tmp_path / name).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert known > 3 and not list(tmp_path.glob("*.damaged-*"))


FILLING = """
import sys, time
from pathlib import Path
from tator_sdk.unfinished import unfinished
with unfinished(Path(sys.argv[1]), ".set.part-") as folder:
    (folder / "half").write_text("half")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_was_filling_goes_and_what_a_living_one_fills_stays(tmp_path: Path) -> None:
    fillers = [
        subprocess.Popen([sys.executable, "-c", FILLING, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    folders = [Path(one.stdout.readline().strip()) for one in fillers if one.stdout is not None]
    fillers[0].kill()
    fillers[0].wait(10)
    assert all((folder / "half").exists() for folder in folders)
    with unfinished(tmp_path, ".set.part-") as mine:
        assert not folders[0].exists() and (folders[1] / "half").exists() and mine.is_dir()
    assert not mine.exists() and (folders[1] / "half").exists()
    fillers[1].terminate()
    fillers[1].wait(10)
    with unfinished(tmp_path, ".set.part-"):
        pass
    until(lambda: not list(tmp_path.iterdir()), 5)
