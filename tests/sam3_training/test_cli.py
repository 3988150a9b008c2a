"""``tator train sam3`` and ``tator models sam3``: options, where it runs, what is shown and done."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tator_ml.sam3.registry import Sam3Entry, sam3_registry
from tator_sdk.datasets import DatasetRegistry
from tator_sdk.settings import Settings
from tests.cli.conftest import Tator
from tests.jobs.conftest import Jobs
from tests.qwen.material import yolo
from tests.sam3_training.test_registry import ABOUT, model_with

SCORES = {"ap50": 0.61, "ap": 0.4, "ap75": 0.41, "ar": 0.5, "per_class": {"pothole": 0.7, "crack": 0.52}}
GATE = {
    "activate": False, "reason": "its lead may be luck", "candidate": SCORES, "active": {**SCORES, "ap50": 0.58},
    "active_id": "base", "pictures": 31,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: Path) -> None:
    monkeypatch.setenv("TATOR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SAM3_MODEL_ID", str(base))
    monkeypatch.setenv("TATOR_DEVICE", "cpu")
    monkeypatch.setenv("TATOR_OFFLINE", "true")


@pytest.fixture
def run() -> Sam3Entry:
    return sam3_registry(Settings()).add(ABOUT, {"gate": GATE}, model_with())


def test_a_dry_run_shows_phrases_frequencies_and_memory(tator: Tator, tmp_path: Path) -> None:
    folder = yolo(tmp_path / "set")
    words = ["--dataset", folder, "--dry-run", "--phrases", "car=red car", "--sampler", "inverse_sqrt"]
    said = tator("train", "sam3", *words)
    assert re.search(r"car +5 +\d .*car \| red car", said) and re.search(r"bus +4 +\d", said)
    assert "drawn (inverse_sqrt)" in said and said.count("%") == 4 and "tram" in said
    assert "Boxes are learned" in said and "of memory (weights" in said and "free" in said
    assert len(sam3_registry(Settings()).entries()) == 1
    assert "too much" not in said


def test_without_a_worker_it_is_trained_here_and_a_data_set_goes_by_its_name(
    tator: Tator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def tune(request: Any, settings: Settings, job: Any) -> dict[str, Any]:
        asked.append((request, job.id))
        of = {"job": job.id} if len(asked) == 2 else {}
        entry = sam3_registry(settings).add(ABOUT, {"gate": GATE, **of}, model_with(len(asked)))
        return {"id": entry.id, "activated": True, "reason": "so it is"}

    monkeypatch.setattr("training.sam3.job.tune", tune)
    said = tator("train", "sam3", "--project", "3", "--method", "lora", "--layer_decay", "0.8")
    assert "No worker answers" in said and "It is active in project 3" in said and "rollback --project 3" in said
    assert "AP50" in said and "0.610" in said
    tator("train", "sam3", "-p", "3", "--method", "lora", "--layer-decay", "0.8")
    tator("train", "sam3", "-p", "3", "--method", "lora", "--layer-decay", "0.8")
    tator("train", "sam3", "-p", "3")
    (one, first), (_, second), (_, again), (_, other) = asked
    assert one.method == "lora" and one.layer_decay == 0.8
    assert first == second  # so that the same command goes on where it was stopped
    assert again == f"{first}-2" and not other.startswith(first)  # but learns anew once it has come to its run


def test_a_process_that_only_helps_says_nothing_and_ends_well(tator: Tator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("training.sam3.job.tune", lambda *_: {})
    assert tator("train", "sam3", "-p", "3") == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give either --project N"),
        (["-p", "3", "--phrases", "car"], "CLASS=PHRASE"),
        (["-p", "3", "--sampler", "odd"], "odd"),
        (["-p", "3", "--negatives", "-1"], "--negatives"),
    ],
)
def test_bad_options_are_named(tator: Tator, words: list[str], said: str) -> None:
    assert said in tator("train", "sam3", *words, code=2)


def test_a_worker_gets_the_request_once(
    jobs: Jobs,
    tator: Tator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in jobs.settings.environment().items():
        monkeypatch.setenv(name, value)
    folder = yolo(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    first = tator("train", "sam3", "--dataset", "set", "--detach").split()[0]
    record = jobs.records.get(first)
    assert record.kind == "sam3" and record.request["dataset"] == str(folder)
    assert record.title == "tune the SAM 3 on set"
    assert tator("train", "sam3", "--dataset", "set", "--detach").split()[0] == first
    with pytest.raises(Exception, match="with other settings is not over"):
        tator("train", "sam3", "--dataset", "set", "--rank", "4", "--detach")


def test_a_data_set_of_type_sam3_is_listed_and_learned_from(tator: Tator, tmp_path: Path) -> None:
    folder = yolo(tmp_path / "set")
    (folder / "sam3_dataset.json").write_text(json.dumps({"type": "bbox", "classes": ["car", "bus", "tram"]}))
    record = DatasetRegistry(Settings().home).register(
        folder, type="sam3", classes={"car": 5, "bus": 4}, splits={"train": 10}
    )
    assert "sam3" in tator("datasets", "list")
    said = tator("train", "sam3", "--dataset", record.id, "--dry-run")
    assert re.search(r"car +5 +\d", said)


# Models


def test_runs_are_listed_shown_activated_and_taken_back(tator: Tator, run: Sam3Entry) -> None:
    lines = [line for line in tator("models", "sam3", "list").splitlines() if line.startswith(("base", run.id))]
    assert len(lines) == 2 and "0.610" in lines[1] and "0.580" in lines[1] and "potholes" in lines[1]
    said = tator("models", "sam3", "show", "sam3-p3-1")
    for part in ("pothole | hole in the road", "boxes and masks", "AP of crack", "31 held-out", "may be luck", "1008"):
        assert part in said
    assert json.loads(tator("models", "sam3", "show", run.id, "--json"))["metadata"]["phrases"]["crack"] == ["crack"]
    said = tator("models", "sam3", "activate", "sam3-p3", "--project", "3")
    assert f"{run.id} is active in project 3" in said and "held back: its lead may be luck" in said
    assert "already" in tator("models", "sam3", "activate", run.id, "--project", "3")
    with pytest.raises(Exception, match="active in project 3"):
        tator("models", "sam3", "delete", run.id)
    assert "back at base" in tator("models", "sam3", "rollback", "--project", "3")
    assert "0.610" in tator("models", "sam3", "history", "--project", "3")
    assert str(run.id) in tator("models", "sam3", "download", run.id, Settings().home / "run.zip")
    assert "deleted" in tator("models", "sam3", "delete", run.id, "--yes")
    assert len(sam3_registry(Settings()).entries()) == 1


def test_storage_is_shown_and_deleted_by_scope(tator: Tator, run: Sam3Entry) -> None:
    said = tator("models", "sam3", "storage")
    assert run.id in said and "runs" in said and "in all" in said
    assert "keep nothing" in tator("models", "sam3", "storage", "--project", "4")
    assert "nothing to delete" in tator("models", "sam3", "storage", "--delete", "best")
    assert "Nothing was deleted" in tator("models", "sam3", "storage", "--delete", "all", "--dry-run")
    assert "Aborted" in tator("models", "sam3", "storage", "--delete", "runs", code=1)  # nobody says yes
    assert "given back" in tator("models", "sam3", "storage", "--delete", "runs", "--yes")
    assert len(sam3_registry(Settings()).entries()) == 1


def test_promoting_what_is_not_there_is_said(tator: Tator, run: Sam3Entry) -> None:
    with pytest.raises(Exception, match="no training 'sam3-9'"):
        tator("models", "sam3", "promote", "sam3-9")
    with pytest.raises(Exception, match="is a run already"):
        tator("models", "sam3", "promote", run.id)
