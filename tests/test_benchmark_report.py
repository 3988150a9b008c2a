"""Figures of a benchmark are kept as they come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.report import Figure


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
