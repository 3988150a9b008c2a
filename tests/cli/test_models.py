"""The verbs about class heads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tator_ml.learning.registry import HeadEntry, RegistryError
from tator_ml.learning.stores import head_registry, project_choices
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings
from tests.cli.conftest import Tator, head, report


def made(*classes: str, project: int | None = 3, seed: int = 0, **about: object) -> HeadEntry:
    """A head in the registry of this test's home."""
    examples = [
        {"image": f"i{row // 2}", "annotation": row, "label": classes[0], "held_out": row == 0} for row in range(5)
    ]
    written = report(*classes, **about)  # type: ignore[arg-type]
    return head_registry(Settings()).add(head(*classes, seed=seed), project, written, examples)


def test_without_heads_the_list_says_how_to_train_one(tator: Tator) -> None:
    assert "tator train clip --project N" in tator("models", "list")
    made("Car", "Bus", project=4)
    assert "tator train clip --project 3" in tator("models", "list", "--project", "3")


def test_list_shows_the_newest_first_and_where_each_is_active(tator: Tator) -> None:
    first, second = made("Car", "[red]Bus"), made("Car", "Bus", "Van", project=None, active=0.912, activate=False)
    project_choices(Settings()).activate(7, first.version, "person")
    tator("models", "activate", first.version, "--project", "3")
    title, newest, oldest = tator("models", "list").splitlines()
    assert title.split()[:1] == ["version"]
    assert newest.split()[0] == second.version and "✓" not in newest and "worse than 0.912" in newest
    assert oldest.split()[0] == first.version and "✓ 3, 7" in oldest
    assert "0.875" in oldest and "77" in oldest and "starter" in oldest and "good" in oldest
    assert [line.split()[0] for line in tator("models", "list", "-p", "7").splitlines()[1:]] == [first.version]


def test_show_has_figures_tables_and_the_decision(tator: Tator) -> None:
    entry = made("Car", "[red]Bus", active=0.85)
    said = tator("models", "show", entry.version[:-3])
    for words in (
        "4 boxes, 1 held out, 3 pictures, 5 annotations",
        "solver lbfgs",
        "[red]Bus",
        "temperature   1.250",
        "0.70, lead 0.15",
        "3 times '[red]Bus' taken for 'Car'",
        "what it is",
        "macro-F1 0.875 on 13 held-out boxes in 4 pictures; the active head head-before reached 0.850",
        "95.3 % of the answers should be right, 88.0 % of known objects get one",
        "note: 'Tram' is left out",
    ):
        assert words in said, said
    whole = json.loads(tator("models", "show", entry.version, "--json"))
    assert whole["version"] == entry.version and whole["learned_from"]["boxes"] == 4
    assert whole["report"]["gate"]["active"] == 0.85 and whole["head"]["label_map"] == ["Car", "[red]Bus"]


def test_a_big_confusion_matrix_is_cut_to_what_is_confused(tator: Tator) -> None:
    entry = made(*(f"class {number}" for number in range(20)))
    said = tator("models", "show", entry.version)
    matrix = said.split("Confusion")[1]
    assert "The 12 most confused of 20 classes; --json has them all." in matrix
    assert "class 1 " in matrix and "class 19" not in matrix
    assert len(max(matrix.splitlines(), key=len)) <= 140


def test_a_head_without_a_report_can_be_shown(tator: Tator, tmp_path: Path) -> None:
    head("Car", "Bus").save(tmp_path / "bare")
    version = tator("models", "add", tmp_path / "bare").split()[0]
    said = tator("models", "show", version)
    assert "from bare" in said and "could not be told" in said
    assert "imported" in tator("models", "list")
    for broken in (
        {"metrics": 3, "gate": [], "notes": {}},
        {"metrics": {"held_out": {"boxes": 1, "confusion": [[1]]}}},
    ):
        (tmp_path / "bare" / "report.json").write_text(json.dumps({**broken, "created": None}))
        folder = Settings().home / "heads" / version
        (folder / "report.json").write_text(json.dumps(broken))
        assert version in tator("models", "show", version)


def test_activate_rollback_default_and_history(tator: Tator) -> None:
    first, second = made("Car", "Bus"), made("Car", "Bus", "Van", activate=False)
    assert "never changed" in tator("models", "history", "--project", "3")
    assert f"{first.version} is active in project 3." in tator("models", "activate", "head-p3-1", "-p", "3")
    assert "active in project 3 already" in tator("models", "activate", first.version, "-p", "3")
    assert "held back: its macro-F1 of 0.875" in tator("models", "activate", second.version, "-p", "3")
    assert f"back at {first.version}" in tator("models", "rollback", "-p", "3")
    assert "the backend's own head" in tator("models", "default", "-p", "3")
    assert project_choices(Settings()).get(3).head is None
    assert "already" in tator("models", "default", "-p", "3")
    lines = tator("models", "history", "-p", "3").splitlines()[1:]
    assert [("person" in line, "rollback" in line) for line in lines] == [
        (True, False), (False, True), (True, False), (True, False)
    ]  # fmt: skip
    assert first.version in lines[-1] and "0.875" in lines[-1]
    with pytest.raises(RegistryError, match="write one out"):
        tator("models", "activate", "head", "-p", "3")
    with pytest.raises(RegistryError, match="tator models list"):
        tator("models", "activate", "nothing", "-p", "3")


def test_export_and_add(tator: Tator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    entry = made("Car", "Bus")
    assert f"{entry.version}.zip" in tator("models", "export", entry.version)
    tator("models", "export", entry.version, "cars.zip")
    with pytest.raises(RegistryError, match="exists already"):
        tator("models", "export", entry.version, "cars.zip")
    said = tator("models", "add", "cars.zip", "--project", "5", "--activate")
    added = project_choices(Settings()).get(5).head
    assert added and added.startswith("head-p5-1-") and f"{added} is active in project 5" in said
    assert f"from cars.zip, where it was {entry.version}" in tator("models", "show", added)
    assert "--project N` makes it active" in tator("models", "add", f"{entry.version}.zip")
    with pytest.raises(TatorError, match="--activate needs --project"):
        tator("models", "add", "cars.zip", "--activate")
    Path("old.pkl").write_bytes(b"cos\nsystem\n")
    with pytest.raises(RegistryError, match="never opened"):
        tator("models", "add", "old.pkl")


def test_auto_shows_and_chooses(tator: Tator) -> None:
    assert (
        tator("models", "auto", "-p", "3") == "project 3: a head is trained after every 20 annotations (the default)\n"
    )
    assert "every 50 annotations\n" in tator("models", "auto", "-p", "3", "50")
    assert project_choices(Settings()).get(3).train_after == 50
    assert "no head is trained by itself\n" in tator("models", "auto", "-p", "3", "off")
    assert "(the default)" in tator("models", "auto", "-p", "3", "default")
    for wrong in ("0", "often", "²", "1.5"):
        with pytest.raises(TatorError, match="off or default"):
            tator("models", "auto", "-p", "3", wrong)


def test_home_is_another_registry(tator: Tator, tmp_path: Path) -> None:
    made("Car", "Bus")
    assert "no heads yet" in tator("models", "list", "--home", tmp_path / "other")
