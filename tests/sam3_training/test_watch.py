"""What is kept of a training: the best weights, the curve up to a step, and when it gets no better."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tator_sdk.settings import Settings
from training.job import LocalJob
from training.sam3.scores import Scores
from training.sam3.watch import CURVE, Watch
from training.sam3.weights import read_learned


def watched(home: Path, patience: int = 2, evaluations: tuple[Any, ...] = (), step: int = 0) -> Watch:
    return Watch(LocalJob(Settings(home=home), "watched"), patience, evaluations, step)


def measure(watch: Watch, *aps: float, begin: int = 1) -> None:
    for step, ap in enumerate(aps, begin):
        weights = {"some": nn.Parameter(torch.tensor([float(step)]))}
        watch.measured(step, step / 2, Scores(ap, ap, ap, ap, {}, 3, 3, 3), weights, 1.0)


def test_the_best_weights_are_kept_until_better_ones_are_there(tmp_path: Path) -> None:
    watch = watched(tmp_path)
    measure(watch, 0.2, 0.5, 0.3)
    assert watch.best()["step"] == 2 and read_learned(watch.kept())[0]["some"].tolist() == [2.0]
    assert not watch.out_of_patience()
    measure(watch, 0.5, begin=4)
    assert watch.best()["step"] == 2 and watch.out_of_patience()
    measure(watch, 0.6, begin=5)
    # an attempt that goes on from before this step would still want the ones before
    assert sorted(path.name for path in (tmp_path / "jobs/watched").glob("best-*")) == ["best-2", "best-5"]
    assert not watch.out_of_patience() and read_learned(watch.kept())[0]["some"].tolist() == [5.0]
    measure(watch, 0.7, begin=6)
    assert sorted(path.name for path in (tmp_path / "jobs/watched").glob("best-*")) == ["best-5", "best-6"]


def test_while_nothing_fits_the_last_weights_count_and_nobody_loses_patience(tmp_path: Path) -> None:
    watch = watched(tmp_path, patience=1)
    measure(watch, 0.0, 0.0, 0.0)
    assert watch.best()["step"] == 3 and not watch.out_of_patience()
    assert not watched(tmp_path / "never", patience=0).out_of_patience()


def test_a_curve_goes_on_from_a_step(tmp_path: Path) -> None:
    watch = watched(tmp_path)
    for step in range(1, 5):
        watch.point(step=step, loss=1 / step)
    path = tmp_path / "jobs/watched" / CURVE
    with path.open("a") as file:
        file.write('{"step": 5, "lo')  # cut short by a kill
    watched(tmp_path, step=2).point(step=3, loss=0.5)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_of_several_processes_one_writes_the_curve(tmp_path: Path) -> None:
    watch = watched(tmp_path)
    measure(watch, 0.1, 0.2)
    curve = LocalJob(Settings(home=tmp_path), "watched").folder / CURVE
    before = curve.read_text()
    Watch(LocalJob(Settings(home=tmp_path), "watched"), 2, (), 1, writes=False)
    assert curve.read_text() == before
    Watch(LocalJob(Settings(home=tmp_path), "watched"), 2, (), 1)
    assert curve.read_text() == before.splitlines(keepends=True)[0]
