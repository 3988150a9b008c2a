"""Choices of a project: one file for all processes, no change lost."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tator_ml.projects import ProjectChoices, Projects
from tator_sdk.errors import TatorError

ROOT = Path(__file__).parents[2]


def test_a_choice_leaves_the_others_and_is_seen_at_once(tmp_path: Path) -> None:
    one, other = Projects(tmp_path), Projects(tmp_path)
    assert other.get(3) == ProjectChoices() == other.get(None)
    one.choose(3, assists=("refine",))
    one.choose(3, train_after=5)
    assert other.get(3) == ProjectChoices(("refine",), None, 5) and other.get(4) == ProjectChoices()
    one.activate(3, "head-1", "person")
    assert other.get(3).head == "head-1" and other.get(3).train_after == 5
    with pytest.raises(TatorError, match="nonsense"):
        one.choose(3, assists=("nonsense",))
    one.choose(3, assists=())
    assert other.get(3).assists == ()


def test_what_another_version_wrote_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    (tmp_path / "3.json").write_text(
        '{"words": {"text": "cars", "later": 1}, "comparison": {"share": 0.1, "seed": 1, "since": 2, "later": 1}}'
    )
    kept = Projects(tmp_path).get(3)
    assert kept.words is not None and kept.words.text == "cars" and kept.comparison is not None
    for damaged in ("[]", '{"words": {"field": "x"}}', '{"comparison": {"share": 0.1}}', "{", '{"words": 3}'):
        (tmp_path / "3.json").write_text(damaged)
        with pytest.raises(TatorError, match=r"put .*3\.json back from a backup, or move it aside"):
            Projects(tmp_path).get(3)


def test_threads_that_choose_different_things_lose_nothing(tmp_path: Path) -> None:
    def work(what: str) -> None:
        for number in range(40):
            projects = Projects(tmp_path)
            if what == "head":
                projects.activate(1, f"head-{number}", "person")
            else:
                projects.choose(1, **{what: number if what == "train_after" else ("refine",)})  # type: ignore[arg-type]

    threads = [threading.Thread(target=work, args=(what,)) for what in ("head", "train_after", "assists")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Projects(tmp_path).get(1) == ProjectChoices(("refine",), "head-39", 39)
    history = Projects(tmp_path).activations(1)
    assert [one.version for one in history] == [f"head-{number}" for number in range(40)]
    assert [one.before for one in history[1:]] == [one.version for one in history[:-1]]


def test_processes_that_activate_at_once_write_one_history(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tator_ml.projects import Projects\n"
        "for n in range(40): Projects(Path(sys.argv[1])).activate(1, f'{sys.argv[2]}-{n}', 'gate', {'n': n})"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], cwd=ROOT) for name in "ab"]
    assert [process.wait(60) for process in running] == [0, 0]
    history = Projects(tmp_path).activations(1)
    assert len(history) == 80 and Projects(tmp_path).get(1).head == history[-1].version
    assert [one.before for one in history] == [None, *(one.version for one in history[:-1])]


def test_half_a_line_of_a_crash_spoils_no_other(tmp_path: Path) -> None:
    projects = Projects(tmp_path)
    projects.activate(1, "a", "person")
    with (tmp_path / "1.heads.jsonl").open("a") as file:
        file.write('{"at": 1.0, "head": "b"')
    projects.activate(1, "c", "gate", {"candidate": 0.5})
    projects.activate(1, "d", "person")
    assert [one.version for one in projects.activations(1)] == ["a", "c", "d"]
    assert projects.activations(1)[1].figures == {"candidate": 0.5}


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text('{"head": ')
    with pytest.raises(TatorError, match=r"put .*1\.json back from a backup, or move it aside"):
        Projects(tmp_path).get(1)
