"""A whole tuning: data set, training, comparison, registry, activation; and checkpoints that are kept."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from transformers import Sam3VideoModel

from tator_ml.sam3.registry import sam3_registry
from tator_sdk.errors import TatorError
from tator_sdk.sam3_request import Sam3Training
from tator_sdk.settings import Settings
from tests.qwen.material import Watched, yolo
from tests.qwen.test_job import PROJECT, labelled_pictures, studio
from tests.sam3_training.material import FAST
from tests.sam3_training.test_registry import ABOUT, model_with
from training.gate import Decision
from training.job import JobCancelled
from training.sam3 import job as job_module
from training.sam3.begun import alone, is_training
from training.sam3.job import tune
from training.sam3.promote import PromoteError, kept_in, promote
from training.sam3.storage import bytes_of, deletable, delete, stored
from training.tuning import activate_where_good

STOPPED: dict[str, Any] = {"evaluate_every": 2, "label": "three steps"}
QUICK: dict[str, Any] = {**FAST, "epochs": 1, "checkpoint_every": 1, "compare_pictures": 2}


def settings_at(home: Path, base: Path) -> Settings:
    return Settings(home=home, sam3_model_id=str(base), device="cpu", offline=True)


@pytest.fixture
def settings(base: Path, tmp_path: Path) -> Settings:
    return settings_at(tmp_path / "home", base)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return yolo(tmp_path_factory.mktemp("data") / "set")


def of_files(folder: Path, **changes: Any) -> Sam3Training:
    return Sam3Training(dataset=str(folder), **{**QUICK, **changes})


@pytest.fixture(scope="module")
def stopped_once(base: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that was cancelled after its third step."""
    settings = settings_at(tmp_path_factory.mktemp("stopped"), base)
    job = Watched(settings, "sam3-here-1a2b", stop_at=3)
    with pytest.raises(JobCancelled):
        tune(of_files(dataset, **STOPPED), settings, job)
    return job.folder


@pytest.fixture
def stopped(settings: Settings, stopped_once: Path) -> Path:
    """The same in this test's home."""
    folder = settings.home / "jobs" / stopped_once.name
    shutil.copytree(stopped_once, folder)
    return folder


def test_a_run_is_registered_with_everything_that_made_it(settings: Settings, dataset: Path) -> None:
    job = Watched(settings)
    result = tune(of_files(dataset, phrases=("car=red car",)), settings, job)
    entry = sam3_registry(settings).entry(result["id"])
    assert not result["activated"] and result["classes"] == 2 and result["ap50"] is not None
    about = json.loads((Path(str(entry.folder)) / "metadata.json").read_text())
    assert about["classes"] == ["car", "bus"] and about["phrases"] == {"car": ["car", "red car"], "bus": ["bus"]}
    assert about["model_id"] == settings.sam3_model_id and about["source_dataset"] == str(dataset)
    assert about["resolution"] == 56 and about["method"] == "whole" and not about["masks"]
    assert about["trained_by"]["phrases"] == ["car=red car"] and about["label"] == "car, bus"
    metrics = entry.metrics or {}
    held_out = metrics["pictures"]["held_out"]
    assert metrics["pictures"]["train"] + held_out == 10 == len(entry.examples())
    assert metrics["gate"]["active_id"] == "base" and metrics["gate"]["pictures"] == min(2, held_out)
    assert metrics["steps"] == metrics["planned_steps"] == 5 and metrics["evaluations"]
    assert any("tram" in note for note in metrics["notes"])
    left = {path.name for path in job.folder.iterdir()}
    assert left == {"curve.jsonl", "training.json", ".training.lock"}
    # the whole of it is read, the tracker too
    _, report = Sam3VideoModel.from_pretrained(entry.weights, output_loading_info=True)  # type: ignore[misc]
    assert not report["missing_keys"] and not report["unexpected_keys"]


def test_a_tuned_one_is_tuned_on_and_what_it_has_learned_from_is_not_compared_on(
    settings: Settings, dataset: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = promote(settings, stopped.name)
    monkeypatch.setattr(job_module, "active_or_base", lambda *_: first)
    wanted = of_files(dataset, seed=1, most_steps=1, base=first.id, compare_pictures=50)
    entry = sam3_registry(settings).entry(tune(wanted, settings, Watched(settings, "another"))["id"])
    assert entry.metadata is not None and entry.metadata.model_id == first.id
    learned = {one["image"] for one in first.examples() if not one["held_out"]}
    held_out = {one["image"] for one in entry.examples() if one["held_out"]}
    gate = (entry.metrics or {})["gate"]
    assert held_out & learned and gate["pictures"] == len(held_out - learned)  # another seed holds out others


def test_a_project_is_learned_and_a_good_model_takes_over(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    studio(monkeypatch, labelled_pictures(4))
    decision = Decision(True, "it is good", None, None, None, None, 4)
    monkeypatch.setattr(job_module, "compare", lambda *_: decision)
    wanted = Sam3Training(project=PROJECT, **{**QUICK, "most_steps": 1})
    result = tune(wanted, settings, Watched(settings))
    registry = sam3_registry(settings)
    assert result["activated"] and registry.active(PROJECT).id == result["id"] and registry.active(8).id == "base"
    assert registry.entry(result["id"]).project == PROJECT and result["id"].startswith("sam3-p7-1-")
    assert registry.rollback(PROJECT).id == "base"


@pytest.mark.parametrize(
    ("activation", "good", "active"),
    [("auto", True, True), ("auto", False, False), ("never", True, False), ("always", False, True)],
)
def test_the_gate_decides_unless_a_person_does(settings: Settings, activation: str, good: bool, active: bool) -> None:
    registry = sam3_registry(settings)
    run = registry.add(ABOUT, {"gate": {"activate": good, "reason": "it is what it is"}}, model_with())
    job = Watched(settings)
    assert activate_where_good(registry, run, activation, 3, job) == active
    assert registry.active(3).id == (run.id if active else "base") and "it is what it is" in job.lines[0]
    assert not activate_where_good(registry, run, activation, None, job)  # of no project


@pytest.mark.faults
def test_a_job_that_had_registered_its_run_before_it_died_does_not_do_so_twice(
    settings: Settings, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any) -> bool:
        raise KeyboardInterrupt

    wanted = of_files(dataset, most_steps=1)
    monkeypatch.setattr(job_module, "compare", lambda *_: Decision(False, "no", None, None, None, None, 0))
    with monkeypatch.context() as patch:
        patch.setattr(job_module, "activate_where_good", dies)
        with pytest.raises(KeyboardInterrupt):
            tune(wanted, settings, Watched(settings))
    (run,) = sam3_registry(settings).entries()[1:]
    assert tune(wanted, settings, Watched(settings))["id"] == run.id
    assert len(sam3_registry(settings).entries()) == 2


def test_one_process_at_a_time_trains_in_a_folder(settings: Settings, dataset: Path) -> None:
    job = Watched(settings)
    with alone(job.folder):
        assert is_training(job.folder)
        with pytest.raises(TatorError, match="does this training already"):
            tune(of_files(dataset), settings, job)
    assert not is_training(job.folder)


def test_weights_without_their_model_are_no_base(settings: Settings, dataset: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.touch()
    with pytest.raises(Exception, match=r"SAM3_CHECKPOINT_PATH.*--base"):
        tune(of_files(dataset), settings.model_copy(update={"sam3_checkpoint": file}), Watched(settings))


# Checkpoints


def test_a_checkpoint_is_promoted_without_the_optimizer(settings: Settings, stopped: Path, base: Path) -> None:
    folder = stopped
    assert [(one.step, one.best) for one in kept_in(folder)] == [(2, True), (2, False), (3, False)]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name[0] != "."}
    best, newest = promote(settings, "sam3-here"), promote(settings, folder.name, step=3)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name[0] != "."}
    assert before == after  # the training can go on
    assert best.label == newest.label == "three steps" and "step 2 of sam3-here-1a2b" in best.description
    assert newest.metrics is not None and newest.metrics["promoted_from"] == folder.name
    assert best.metrics is not None and best.metrics["best"]["step"] == 2 and not best.metrics["gate"]["activate"]
    assert len(newest.examples()) == 10 and newest.phrases == {"car": ("car",), "bus": ("bus",)}
    kept = next(one.learned for one in kept_in(folder) if one.step == 3)
    with safe_open(kept, "np") as learned, safe_open(newest.weights / "model.safetensors", "np") as model:
        names: Any = learned.keys()
        assert names and all(
            (learned.get_tensor(name) == model.get_tensor(f"detector_model.{name}")).all() for name in names
        )
        with safe_open(base / "model.safetensors", "np") as before_all:
            assert set(model.keys()) == set(before_all.keys())  # nothing of the optimiser's
    assert sam3_registry(settings).activate(4, newest.id, "person").id == newest.id


def test_what_cannot_be_promoted_is_said(settings: Settings, stopped: Path) -> None:
    folder = stopped
    with pytest.raises(PromoteError, match=r"no checkpoint of step 9; it has 2 \(best\), 2, 3"):
        promote(settings, folder.name, step=9)
    with pytest.raises(PromoteError, match="no training 'sam3-77'"):
        promote(settings, "sam3-77")
    run = promote(settings, folder.name)
    with pytest.raises(PromoteError, match="is a run already"):
        promote(settings, run.id)
    shutil.copytree(folder, folder.with_name("sam3-here-ffff"))
    with pytest.raises(PromoteError, match="write one out"):
        promote(settings, "sam3-here")
    for path in (folder / "checkpoints", *folder.glob("best-*")):
        shutil.rmtree(path)
    with pytest.raises(PromoteError, match="has no checkpoint"):
        promote(settings, folder.name)


def test_storage_is_given_back_by_scope(settings: Settings, stopped: Path, dataset: Path) -> None:
    folder = stopped
    run, active = promote(settings, folder.name), promote(settings, folder.name, step=3)
    registry = sam3_registry(settings)
    registry.activate(5, active.id, "person")
    found = stored(settings)
    sums = {scope: sum(one.bytes for one in found if one.scope == scope) for scope in {one.scope for one in found}}
    assert set(sums) == {"checkpoints", "optimizer", "best", "runs"} and sums["optimizer"] > sums["checkpoints"]
    assert sums["checkpoints"] + sums["optimizer"] == bytes_of([folder / "checkpoints"])
    assert sums["runs"] == bytes_of([registry.folder])
    assert stored(settings, project=5) == []

    states = deletable(found, "optimizer")
    assert delete(settings, states) == sums["optimizer"] and not list(folder.rglob("optimizer*"))
    assert promote(settings, folder.name, step=3).weights.exists()  # the rest is enough for that
    job = Watched(settings, folder.name, stop_at=1)
    with pytest.raises(JobCancelled):
        tune(of_files(dataset, **STOPPED), settings, job)
    assert not any("going on from" in line for line in job.lines)  # but not for going on

    with alone(folder):
        everything = deletable(stored(settings), "all")
        assert {one.scope for one in everything} == {"runs"} and active.id not in {one.owner for one in everything}
        assert delete(settings, [replace(one, held=None) for one in stored(settings) if one.scope == "best"]) == 0
    assert delete(settings, deletable(stored(settings), "all")) > 0
    assert [entry.id for entry in registry.entries()] == ["base", active.id] and run.id != active.id
    assert not list(folder.glob("best-*")) and not list((folder / "checkpoints").glob("*"))


def test_jobs_that_redis_may_know_are_kept_while_it_does_not_answer(settings: Settings, stopped: Path) -> None:
    stopped.rename(stopped.with_name("sam3-3-1a2b"))
    found = stored(settings)
    assert found and all("Redis does not answer" in str(one.held) for one in found) and not deletable(found, "all")
