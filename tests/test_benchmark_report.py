"""Figures of a benchmark are kept as they come, and what it learned for as long as it would learn the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import report
from benchmarks.alone import home_of
from benchmarks.qwen_speed import Questions
from benchmarks.report import Figure
from tator_ml.engine.messages import EngineError


def test_a_late_failure_does_not_cost_the_earlier_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)

    def measured() -> Iterator[Figure]:
        yield Figure("x.first", 1.0, "s", "lower", 2.0)
        raise RuntimeError("a server ended")

    with pytest.raises(RuntimeError):
        report.publish("x", measured())
    assert json.loads(capsys.readouterr().out)["name"] == "x.first"
    assert [one["name"] for one in json.loads((tmp_path / "x.json").read_text())["figures"]] == ["x.first"]


@pytest.mark.parametrize(("value", "code"), [(2.0, 0), (2.1, 1)])
def test_the_exit_code_says_whether_all_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, code: int
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    assert report.publish("x", [Figure("x.a", 1.0, "s", "lower"), Figure("x.b", value, "s", "lower", 2.0)]) == code


def test_what_was_learned_with_other_code_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "a_trainer"
    package.mkdir()
    (package / "__init__.py").touch()
    options = package / "options.py"
    options.write_text("RATE = 1")
    monkeypatch.syspath_prepend(tmp_path)
    first = home_of("x", "a_trainer")
    assert first.parent == Path(".tator/benchmark-x") and home_of("x", "a_trainer.options") != first
    options.write_text("RATE = 1  # a word about it")
    assert home_of("x", "a_trainer") == first
    options.write_text("RATE = 2")
    assert home_of("x", "a_trainer") != first
    with pytest.raises(ModuleNotFoundError):
        home_of("x", "a_trainer.nothing")


def test_a_question_that_is_not_answered_ends_the_measurement(tmp_path: Path) -> None:
    def refuse(_: object) -> None:
        raise EngineError("It has no memory left.")

    (tmp_path / "picture").write_bytes(b"a picture")
    settings = SimpleNamespace(home=tmp_path, image_store_bytes=10**9)
    one: Any = SimpleNamespace(settings=settings, engine=SimpleNamespace(detect=refuse))
    task: Any = SimpleNamespace(path=tmp_path / "picture")
    questions = Questions(one, [task])
    with pytest.raises(SystemExit, match="not answered: It has no memory left"), questions.going_on():
        pass
