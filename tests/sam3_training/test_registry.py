"""Tuned SAM 3s: what their registry has that Qwen's has not (see tests/vlm/test_registry.py), and deleting runs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tator_ml.projects import Projects
from tator_ml.sam3.registry import Sam3Entry, Sam3Metadata, Sam3Registry, Sam3RegistryError

ABOUT = Sam3Metadata(
    id="",
    label="potholes",
    classes=("pothole", "crack"),
    model_id="facebook/sam3",
    created_at="",
    latest_checkpoint="model",
    source_dataset="project 3",
    method="whole",
    project=3,
    phrases={"pothole": ("pothole", "hole in the road"), "crack": ("crack",)},
    resolution=1008,
    masks=True,
)


def model_with(value: float = 0.0) -> Any:
    def write(folder: Path) -> None:
        (folder / "model").mkdir()
        (folder / "model" / "config.json").write_text("{}")
        save_file({"weight": np.full((2, 2), value, np.float32)}, folder / "model" / "model.safetensors")

    return write


@pytest.fixture
def registry(tmp_path: Path) -> Sam3Registry:
    return Sam3Registry(tmp_path / "sam3", Projects(tmp_path / "projects"), "facebook/sam3")


def add(registry: Sam3Registry, value: float = 0.0, **changes: Any) -> Sam3Entry:
    return registry.add(replace(ABOUT, **changes), {}, model_with(value))


def test_a_run_keeps_its_phrases_and_is_a_whole_model(registry: Sam3Registry) -> None:
    entry = registry.entry(add(registry).id)
    assert entry.id.startswith("sam3-p3-1-") and entry.folder is not None
    assert entry.phrases == {"pothole": ("pothole", "hole in the road"), "crack": ("crack",)}
    assert Path(entry.model_id) == entry.weights == entry.folder / "model"
    assert entry.metadata == replace(ABOUT, id=entry.id, created_at=entry.metadata.created_at if entry.metadata else "")


def test_the_segmenters_name_is_the_base(registry: Sam3Registry) -> None:
    names = [registry.entry("sam3"), registry.resolve("sam3"), registry.resolve(None), registry.entry("facebook/sam3")]
    assert {one.id for one in names} == {"base"} and names[0].phrases == {}
    assert registry.resolve("org/other").model_id == "org/other"


def test_the_engines_name_follows_the_activation(registry: Sam3Registry, tmp_path: Path) -> None:
    projects = Projects(tmp_path / "projects")
    run = add(registry)
    registry.activate(3, run.id, "person")
    projects.choose(3, segmenter="sam3")
    assert projects.get(3).concepts_by == projects.get(3).clicks_by == run.id
    registry.rollback(3)
    assert projects.get(3).concepts_by == "sam3"


@pytest.mark.parametrize(("installed", "clicks"), [("sam3", True), ("starter", False)])
def test_an_installation_of_sam3_answers_clicks_with_a_projects_own(
    registry: Sam3Registry, tmp_path: Path, installed: str, clicks: bool
) -> None:
    projects = Projects(tmp_path / "projects", installed)
    assert projects.get(3).clicks_by is None
    run = registry.activate(3, add(registry).id, "person")
    assert projects.get(3).clicks_by == (run.id if clicks else None)
    assert "installed" not in projects.get(3).as_json() | json.loads((tmp_path / "projects" / "3.json").read_text())
    projects.choose(3, segmenter="mobile_sam")
    assert projects.get(3).clicks_by == "mobile_sam"


def test_without_its_configuration_a_run_is_damaged(registry: Sam3Registry, tmp_path: Path) -> None:
    def bare(folder: Path) -> None:
        model_with()(folder)
        (folder / "model" / "config.json").unlink()

    with pytest.raises(Sam3RegistryError, match=r"config\.json"):
        registry.add(ABOUT, {}, bare)
    assert list((tmp_path / "sam3").iterdir()) == []


def test_what_is_active_is_not_deleted(registry: Sam3Registry, tmp_path: Path) -> None:
    one, two = add(registry), add(registry, 1)
    registry.activate(3, one.id, "person")
    registry.activate(5, one.id, "person")
    with pytest.raises(Sam3RegistryError, match=r"active in project 3, 5.*rollback"):
        registry.remove(one.id)
    (tmp_path / "sam3" / ".gone-sam3-p3-9-000000").mkdir()  # a removal that was killed
    assert registry.remove(two.id).id == two.id
    assert [entry.id for entry in registry.entries()] == ["base", one.id]
    assert [path.name for path in (tmp_path / "sam3").iterdir()] == [one.id]
    with pytest.raises(Sam3RegistryError, match="base"):
        registry.remove("base")
    with pytest.raises(Sam3RegistryError, match="no model"):
        registry.remove(two.id)


def test_an_active_run_that_is_gone_keeps_no_other_from_being_activated(registry: Sam3Registry) -> None:
    one, two = add(registry), add(registry, 1)
    registry.activate(3, one.id, "person")
    assert one.folder is not None
    one.folder.rename(one.folder.with_name("elsewhere"))
    with pytest.raises(Sam3RegistryError, match="no model"):
        registry.active(3)
    assert registry.chosen(3) == one.id and registry.activate(3, two.id, "person").id == two.id
    assert registry.active(3).id == two.id


def test_reading_it_needs_no_torch() -> None:
    code = "import sys, tator_ml.sam3.registry, tator_ml.cli.sam3; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
