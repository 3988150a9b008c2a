"""``tator train qwen`` and ``tator models qwen``: options, where it runs, what is shown and done."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tator_ml.jobs import JobRecord
from tator_ml.vlm.registry import QwenEntry, qwen_registry
from tator_sdk.settings import Settings
from tests.cli.conftest import Tator
from tests.jobs.conftest import Jobs
from tests.qwen.material import yolo
from tests.vlm.test_registry import ABOUT, adapter_with

ROOT = Path(__file__).parents[2]
QUICK = ["--epochs", "1", "--batch", "2", "--accumulate", "1", "--max-new-tokens", "16", "--evaluate-pictures", "1"]
QUICK += ["--compare-pictures", "1"]
SCORES = {
    "map50": 0.61, "f1": 0.7, "precision": 0.8, "recall": 0.6, "mean_iou": 0.55, "label_f1": 0.9,
    "per_class": {"car": 0.7, "bus": 0.52},
}  # fmt: skip
GATE = {
    "activate": False, "reason": "its lead may be luck", "candidate": SCORES, "active": {**SCORES, "map50": 0.58},
    "active_id": "base", "pictures": 31,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: Path) -> None:
    monkeypatch.setenv("TATOR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("QWEN_MODEL_NAME", str(base))
    monkeypatch.setenv("TATOR_DEVICE", "cpu")
    monkeypatch.setenv("TATOR_OFFLINE", "true")


@pytest.fixture
def run() -> QwenEntry:
    return qwen_registry(Settings()).add(ABOUT, {"gate": GATE}, adapter_with())


def test_training_here_registers_a_run_and_says_how_good_it_is(tator: Tator, tmp_path: Path) -> None:
    folder = yolo(tmp_path / "set")
    said = tator("train", "qwen", "--dataset", folder, "--here", "-v", "--label", "toy cars", *QUICK)
    (entry,) = qwen_registry(Settings()).entries()[1:]
    assert entry.id in said and "toy cars" in said and "mAP@0.5" in said and "It is not active" in said
    assert "weights learn" in said and entry.metadata is not None
    assert entry.metadata.trained_by is not None and entry.metadata.trained_by["dataset"] == str(folder)


def test_without_a_worker_it_is_trained_here(tator: Tator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def tune(request: Any, settings: Settings, job: Any) -> dict[str, Any]:
        asked.append((request, job.id))
        entry = qwen_registry(settings).add(ABOUT, {"gate": GATE}, adapter_with())
        return {"id": entry.id, "activated": True, "reason": "so it is"}

    monkeypatch.setattr("training.qwen.job.tune", tune)
    said = tator("train", "qwen", "--project", "3", "--method", "qlora", "--max_image_dim", "640")
    assert "No worker answers" in said and "It is active in project 3" in said and "rollback --project 3" in said
    tator("train", "qwen", "-p", "3", "--method", "qlora", "--max-image-dim", "640")
    tator("train", "qwen", "-p", "3")
    (one, first), (_, second), (_, third) = asked
    assert one.method == "qlora" and one.max_image_dim == 640
    assert first == second != third  # so that the same command goes on where it was stopped


def test_a_dry_run_counts_and_trains_nothing(tator: Tator, tmp_path: Path) -> None:
    said = tator("train", "qwen", "--dataset", yolo(tmp_path / "set"), "--dry-run")
    assert re.search(r"car +5 +\d", said) and re.search(r"bus +4 +\d", said)
    assert "held out" in said and "1 of all show nothing" in said and "tram" in said
    assert len(qwen_registry(Settings()).entries()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give either --project N"),
        (["-p", "3", "--dataset", "x"], "give either --project N"),
        (["-p", "3", "--noise", "0.5"], "--noise"),
        (["-p", "3", "--method", "full"], "full"),
        (["-p", "3", "--rank", "0"], "--rank"),
    ],
)
def test_bad_options_are_named(tator: Tator, words: list[str], said: str) -> None:
    assert said in tator("train", "qwen", *words, code=2)


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
    first = tator("train", "qwen", "--dataset", "set", "--detach").split()[0]
    record: JobRecord = jobs.records.get(first)
    assert record.kind == "qwen" and record.request["dataset"] == str(folder) and record.title == "tune the Qwen on set"
    assert tator("train", "qwen", "--dataset", "set", "--detach").split()[0] == first
    with pytest.raises(Exception, match="with other settings is not over"):
        tator("train", "qwen", "--dataset", "set", "--rank", "4", "--detach")


# Models


def test_the_list_has_the_base_and_every_run(tator: Tator, run: QwenEntry, base: Path) -> None:
    said = tator("models", "qwen", "list")
    lines = [line for line in said.splitlines() if line.startswith(("base", run.id))]
    assert len(lines) == 2 and lines[1].startswith(run.id)
    assert "0.610" in lines[1] and "0.580" in lines[1] and "cars" in lines[1]
    tator("models", "qwen", "activate", run.id, "-p", "3")
    assert any(line.split()[:2] == [run.id, "3"] for line in tator("models", "qwen", "list").splitlines())


def test_one_is_shown_with_how_it_is_asked(tator: Tator, run: QwenEntry) -> None:
    said = tator("models", "qwen", "show", "qwen-p3-1")
    for part in ("Look closely.", "Taken by a drone.", "aerial photograph", "AP of bus", "31 held-out", "may be luck"):
        assert part in said
    whole = json.loads(tator("models", "qwen", "show", run.id, "--json"))
    assert whole["metadata"]["classes"] == ["car", "bus"] and whole["metrics"]["gate"]["pictures"] == 31
    assert json.loads(tator("models", "qwen", "show", "base", "--json"))["metadata"] is None


def test_activating_and_going_back(tator: Tator, run: QwenEntry) -> None:
    said = tator("models", "qwen", "activate", "qwen-p3", "--project", "3")
    assert f"{run.id} is active in project 3" in said and "held back: its lead may be luck" in said
    assert "already" in tator("models", "qwen", "activate", run.id, "--project", "3")
    assert qwen_registry(Settings()).active(3).style.system_prompt == "Look closely."
    assert "back at base" in tator("models", "qwen", "rollback", "--project", "3")
    said = tator("models", "qwen", "history", "--project", "3")
    assert "rollback" in said and "person" in said and "0.610" in said
    assert "never changed" in tator("models", "qwen", "history", "--project", "4")
    with pytest.raises(Exception, match="no model 'qwen-p9'"):
        tator("models", "qwen", "activate", "qwen-p9", "--project", "3")


def test_a_run_is_downloaded_as_a_zip(tator: Tator, run: QwenEntry, tmp_path: Path) -> None:
    path = tmp_path / "run.zip"
    assert str(path) in tator("models", "qwen", "download", run.id, path).replace("\n", "")
    assert "adapter/adapter_model.safetensors" in zipfile.ZipFile(path).namelist()


def test_neither_the_list_nor_the_help_imports_torch() -> None:
    code = (
        "import sys, training.cli.qwen, tator_ml.cli.qwen; from tator_ml.vlm.registry import qwen_registry\n"
        "from tator_sdk.settings import Settings; qwen_registry(Settings()).entries()\n"
        "sys.exit(bool({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
