"""The clock is put right, by hours, while Tator runs: what lasts a time, or is somebody, must not depend on it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tator_ml.jobs.owner import Owner
from tator_ml.learning.examples import Examples
from tator_ml.running.processes import PidFile, ProcessError, same_process, started
from tator_sdk.in_flight import InFlight
from tests.jobs.conftest import Jobs, until
from tests.learning.material import labelled

ROOT = Path(__file__).parents[2]
HOURS = 7 * 3600.0

# where the time of day is what is meant: a date for people, or an order that other programs' dates decide
DATES = {
    "tator_ml/cli/jobs.py": "how long ago, for people",
    "tator_ml/engine/store.py": "age of a file, by the file system's own clock",
    "tator_ml/jobs/lifecycle.py": "dates of a job's record",
    "tator_ml/jobs/ping.py": "a measurement that a person asked for",
    "tator_ml/last_hour.py": "minutes of the day, shown to people",
    "tator_ml/learning/examples.py": "order of news, which is kept where the clock goes back",
    "tator_ml/learning/progress.py": "how long a job that ended is shown",
    "tator_ml/learning/registry.py": "date of a head",
    "tator_ml/notices.py": "date of what is shown",
    "tator_ml/projects.py": "date of an activation",
    "tator_ml/quality/doubts.py": "date of a doubt",
    "tator_ml/quality/store.py": "date of a reading",
    "tator_ml/suggestions.py": "date of a suggestion, compared with Label Studio's dates",
    "tator_ml/web/dashboard/data/uploads.py": "date of an upload, kept for days",
    "tator_ml/web/dashboard/quality/comparison.py": "date of a comparison's beginning",
    "tator_ml/web/dashboard/team.py": "date of a look, and of Label Studio's events",
    "tator_ml/web/dashboard/words.py": "how long ago, for people",
    "tator_ml/web/strip.py": "how long ago, for people",
    "tator_sdk/auth.py": "end of a token; a wrong clock costs one more exchange",
    "tator_sdk/import_record.py": "date of an import",
    "tator_sdk/packages.py": "date of a package",
    "training/cli/train.py": "date of a request, compared with a job's",
}  # fmt: skip


def test_the_time_of_day_measures_no_duration() -> None:
    found = set()
    for folder in ("tator_ml", "tator_sdk", "training"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            if "time.time" not in text or "starter" in path.parts:
                continue
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Attribute) and node.attr == "time" and isinstance(node.value, ast.Name):
                    found.add(path.relative_to(ROOT).as_posix())
    assert found == set(DATES), "a duration is measured by time.monotonic(); a date gets its reason here"


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is put forward: the system says that it was started that much later."""
    real = psutil.boot_time()
    for module in (psutil, psutil._psplatform):
        monkeypatch.setattr(module, "boot_time", lambda: real + HOURS)
    monkeypatch.setattr(time, "time", lambda real=time.time: real() + HOURS)


def test_a_process_stays_the_one_it_was(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        owner, began = Owner.current(), started(psutil.Process(child.pid))
        file = PidFile(tmp_path / "part.json")
        file.write(child.pid)
        request.getfixturevalue("later")
        assert owner.gone() is False, "a job of this process would be begun a second time"
        assert same_process(child.pid, began) is not None
        with pytest.MonkeyPatch.context() as other:  # somebody else looks, while its owner lives
            other.setattr(os, "getpid", lambda: 1)
            with pytest.raises(ProcessError, match="runs already"):
                file.stop_leftover("The part")
        assert child.poll() is None
        file.stop_leftover("The part")  # its owner does
        assert child.wait(10) is not None
    finally:
        child.kill()


def test_a_request_on_its_way_is_waited_for_as_long_as_it_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tator_sdk.in_flight.SETTLE_SECONDS", 0.3)
    monkeypatch.setattr("tator_sdk.in_flight.POLL_SECONDS", 0.05)
    now = time.time
    for jump in (HOURS, -HOURS):  # forwards it was sent a second time at once, backwards waited for for hours
        note = InFlight(tmp_path / "note")
        note.begin("mark", 10)
        monkeypatch.setattr(time, "time", lambda jump=jump: now() + jump)
        begun = time.monotonic()
        assert note.settle(lambda _: False) is False
        assert 0.25 < time.monotonic() - begun < 2
        monkeypatch.setattr(time, "time", now)


def test_news_from_before_the_clock_went_back_is_learned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = Examples(tmp_path / "examples.sqlite")
    examples.put(1, 7, 1, "", [labelled("r", "Car")], {("image", 0): "a.png"})
    monkeypatch.setattr(time, "time", lambda real=time.time: real() - HOURS)
    examples.put(1, 8, 2, "", [labelled("r", "Car")], {("image", 0): "b.png"})
    assert examples.news(1) == 2
    begun = examples.now()
    examples.put(1, 9, 3, "", [labelled("r", "Car")], {("image", 0): "c.png"})
    examples.learned(1, begun)
    assert examples.news(1) == 1, "what came after the training began is news, and nothing else"
    examples.close()


@pytest.mark.faults
def test_a_running_job_is_not_overdue_by_the_clock(jobs: Jobs) -> None:
    worker = jobs.worker(
        "import datetime, rq.worker.base as base, rq.worker.worker_classes as classes, tator_ml.jobs.worker as worker;"
        "from pathlib import Path; from tator_sdk.settings import Settings;"
        "real = base.now; home = Settings().home;"
        f"late = lambda: real() + datetime.timedelta(seconds={HOURS} if (home / 'late').exists() else 0);"
        "base.now = classes.now = worker.now = late; worker.MONITORING_SECONDS = 1; worker.run_worker(Settings())"
    )
    made = jobs.start("wait", {"n": 1}, timeout_seconds=600)
    until(lambda: jobs.diary("begin"))
    (jobs.settings.home / "late").touch()
    time.sleep(2.5)
    assert worker.poll() is None and jobs.records.get(made.id).attempt == 1
    (horse,) = psutil.Process(worker.pid).children()
    horse.kill()  # a death, and no limit that it reached: it goes on
    until(lambda: len(jobs.diary("begin")) == 2)
    jobs.go()
    record = jobs.ends(made.id)
    assert (record.status, record.attempt) == ("done", 2), record.error
