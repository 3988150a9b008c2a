"""Tuned models: whole or not at all, activated at once, taken back step by step, beside the base."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tator_ml.projects import Projects
from tator_ml.runs import METADATA_FILE
from tator_ml.vlm.registry import (
    QwenEntry,
    QwenRegistry,
    QwenRegistryError,
    RunMetadata,
)

ABOUT = RunMetadata(
    id="",
    label="cars from above",
    system_prompt="Look closely.",
    system_prompt_noise=0.05,
    dataset_context="Taken by a drone.",
    classes=("car", "bus"),
    model_id="org/base",
    use_qlora=False,
    max_image_dim=1024,
    max_detections_per_sample=200,
    created_at="",
    latest_checkpoint="adapter",
    source_dataset="project 3",
    image_type="aerial photograph",
    project=3,
)
ASKED_OF_THE_ORIGINAL = {
    "id", "label", "system_prompt", "system_prompt_noise", "dataset_context", "classes", "model_id", "use_qlora",
    "max_image_dim", "max_detections_per_sample", "created_at", "latest_checkpoint", "source_dataset",
}  # fmt: skip


@pytest.fixture
def registry(tmp_path: Path) -> QwenRegistry:
    return registry_at(tmp_path)


def registry_at(folder: Path) -> QwenRegistry:
    return QwenRegistry(folder / "qwen", Projects(folder / "projects"), "org/base")


def adapter_with(value: float = 0.0, name: str = "adapter") -> Any:
    def write(folder: Path) -> None:
        (folder / name).mkdir()
        save_file({"weight": np.full((4, 4), value, np.float32)}, folder / name / f"{name}_model.safetensors")

    return write


def add(registry: QwenRegistry, value: float = 0.0, **changes: Any) -> QwenEntry:
    return registry.add(replace(ABOUT, **changes), {"map50": 0.5}, adapter_with(value))


def test_a_run_is_kept_with_what_it_was_trained_with(registry: QwenRegistry) -> None:
    entry = registry.add(ABOUT, {"map50": 0.5}, adapter_with(), [{"image": "a", "held_out": True}])
    assert entry.id.startswith("qwen-p3-1-") and entry.folder is not None
    written = json.loads((entry.folder / METADATA_FILE).read_text())
    assert set(written) >= ASKED_OF_THE_ORIGINAL
    assert (written["id"], written["classes"], written["latest_checkpoint"]) == (entry.id, ["car", "bus"], "adapter")
    found = registry.entry(entry.id)
    assert found.style.system_prompt == "Look closely." and found.style.extra_context == "Taken by a drone."
    assert found.style.image_type == "aerial photograph" and found.classes == ("car", "bus")
    assert found.model_id == "org/base" and found.adapter == entry.folder / "adapter"
    assert found.metrics == {"map50": 0.5} and found.examples() == [{"image": "a", "held_out": True}]
    assert not [path for path in entry.folder.parent.iterdir() if path.name.startswith(".")]


def test_a_whole_model_is_its_own_base(registry: QwenRegistry) -> None:
    entry = registry.add(replace(ABOUT, latest_checkpoint="model"), {}, adapter_with(name="model"))
    assert entry.adapter is None and entry.folder is not None and entry.model_id == str(entry.folder / "model")


def test_the_list_begins_with_the_base(registry: QwenRegistry) -> None:
    one, other, two = add(registry), add(registry, 1, project=None), add(registry, 2)
    assert one.id.startswith("qwen-p3-1-") and two.id.startswith("qwen-p3-2-") and other.id.startswith("qwen-1-")
    assert [entry.id for entry in registry.entries()] == ["base", two.id, other.id, one.id]
    assert [entry.id for entry in registry.entries(3)] == ["base", two.id, one.id]
    assert registry.entries(4) == [registry.base()] and registry.base().model_id == "org/base"


def test_names_are_resolved_to_what_is_loaded(registry: QwenRegistry) -> None:
    entry = add(registry)
    assert registry.resolve(None) == registry.base() == registry.entry("org/base")
    assert registry.resolve(entry.id).adapter == entry.adapter and registry.entry("qwen-p3-1").id == entry.id
    assert registry.resolve("org/another").model_id == "org/another" and registry.resolve("org/another").adapter is None
    add(registry, 1)
    with pytest.raises(QwenRegistryError, match="write one out"):
        registry.entry("qwen-p3")
    for wrong in ("qwen-p9", "../projects", "/etc", ".part-x", ""):
        with pytest.raises(QwenRegistryError, match="no model"):
            registry.entry(wrong)
    with pytest.raises(QwenRegistryError, match="no model"):
        registry.resolve("qwen-p3-7-abcdef")


def test_an_activation_is_seen_at_once_by_others_and_taken_back(registry: QwenRegistry, tmp_path: Path) -> None:
    one, two = add(registry), add(registry, 1)
    others = registry_at(tmp_path)
    assert others.active(3).id == "base" and others.active(None).id == "base"
    registry.activate(3, one.id, "gate", {"map50": 0.9})
    registry.activate(3, two.id, "person")
    assert others.active(3).id == two.id and others.active(4).id == "base"
    assert [others.rollback(3).id, others.rollback(3).id] == [one.id, "base"]
    with pytest.raises(QwenRegistryError, match="no earlier"):
        others.rollback(3)
    history = Projects(tmp_path / "projects").activations(3, "qwen")
    assert [change.version for change in history] == [one.id, two.id, one.id, None]
    assert history[0].figures == {"map50": 0.9}
    registry.activate(3, one.id, "person")
    registry.activate(3, "base", "person")
    assert registry.active(3).id == "base" and registry.rollback(3).id == one.id


def test_heads_and_qwens_are_activated_apart(registry: QwenRegistry, tmp_path: Path) -> None:
    projects = Projects(tmp_path / "projects")
    projects.activate(3, "head-1", "person")
    registry.activate(3, add(registry).id, "person")
    projects.activate(3, "head-2", "person")
    assert projects.get(3).head == "head-2" and registry.active(3).id != "base"
    assert projects.active_one_after_the_other(3) == [None, "head-1", "head-2"]
    assert registry.rollback(3).id == "base" and projects.get(3).head == "head-2"


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_damaged_run_replaces_none_that_works(registry: QwenRegistry, harm: str) -> None:
    good, bad = add(registry), add(registry, 1)
    registry.activate(3, good.id, "person")
    assert bad.adapter is not None
    weights = bad.adapter / "adapter_model.safetensors"
    if harm == "cut":
        weights.write_bytes(weights.read_bytes()[:-8])
    else:
        weights.unlink()
    with pytest.raises(QwenRegistryError, match="missing or damaged"):
        registry.activate(3, bad.id, "person")
    assert registry.active(3).id == good.id


@pytest.mark.parametrize("text", ["", "[1]", "7", "{", '{"classes": 3}', "{}"])
def test_unreadable_metadata_hides_no_other_run(registry: QwenRegistry, text: str) -> None:
    good, bad = add(registry), add(registry, 1)
    assert bad.folder is not None
    (bad.folder / METADATA_FILE).write_text(text)
    assert [entry.id for entry in registry.entries()] == ["base", good.id]
    with pytest.raises(QwenRegistryError, match="cannot be read"):
        registry.entry(bad.id)


def test_fields_of_a_later_version_do_no_harm(registry: QwenRegistry) -> None:
    entry = add(registry)
    assert entry.folder is not None
    path = entry.folder / METADATA_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "of_a_later_version": 1}))
    assert registry.entry(entry.id).classes == ("car", "bus")


def test_a_training_that_fails_to_write_leaves_nothing(registry: QwenRegistry, tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        adapter_with()(folder)
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        registry.add(ABOUT, {}, full)
    with pytest.raises(QwenRegistryError, match="missing or damaged"):
        registry.add(ABOUT, {}, lambda folder: None)
    assert list((tmp_path / "qwen").iterdir()) == []


def test_a_run_is_given_out_without_the_pictures_it_has_seen(registry: QwenRegistry, tmp_path: Path) -> None:
    entry = registry.add(ABOUT, {}, adapter_with(), [{"image": "a", "held_out": True}])
    path = registry.archive(entry.id, tmp_path / "out" / "run.zip")
    with zipfile.ZipFile(path) as archive:
        assert set(archive.namelist()) == {"metadata.json", "metrics.json", "adapter/adapter_model.safetensors"}
    with pytest.raises(QwenRegistryError, match="exists already"):
        registry.archive(entry.id, path)
    with pytest.raises(QwenRegistryError, match="base model"):
        registry.archive("base", tmp_path / "base.zip")


def test_processes_that_add_at_once_get_ids_of_their_own(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.vlm.test_registry import *\n"
        "r = registry_at(Path(sys.argv[1]))\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for n in range(10): print(add(r, label=sys.argv[2]).id, flush=True)"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), name],
            cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name in "ab"
    ]  # fmt: skip
    for process in running:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    made = [process.communicate(timeout=60)[0].split() for process in running]
    assert len({*made[0], *made[1]}) == 20
    labels = {entry.id: entry.label for entry in registry_at(tmp_path).entries()}
    assert all(labels[one] == name for name, ids in zip("ab", made, strict=True) for one in ids)
    assert not [path for path in (tmp_path / "qwen").iterdir() if path.name.startswith(".")]


def test_reading_it_needs_no_torch() -> None:
    code = "import sys, tator_ml.vlm.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
