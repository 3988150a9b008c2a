"""Documentation is true where a machine can tell: links, pictures, verbs, settings, sizes."""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from tator_sdk.cli import load_commands
from tator_sdk.env_file import COMPOSE_CHOICES
from tator_sdk.requests import HeadTraining
from tator_sdk.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
WEIGHTS = ROOT / "tator_ml" / "weights"
COMPOSE_NAMES = {name.removeprefix("TATOR_") for name, *_ in COMPOSE_CHOICES if name.startswith("TATOR_")}
VERBS = re.compile(r"(?:`|^(?:\$ )?(?:[A-Z_]+=\S+ )*)tator((?: +[a-z][a-z0-9-]*)+)", re.M)
"""Verbs after ``tator`` in backquotes, or where it begins a line of a code block."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_verbs_and_settings_exist(page: Path) -> None:
    text = page.read_text()
    assert not unknown_verbs(text), page.name
    fields = {name.upper() for name in Settings.model_fields} | COMPOSE_NAMES
    for name in re.findall(r"TATOR_([A-Z_]+[A-Z])", text):
        assert name in fields, f"{page.name} names TATOR_{name}"


@functools.cache
def tator() -> Any:
    return get_command(load_commands())


def unknown_verbs(text: str) -> list[str]:
    """Verbs that the text names and that do not exist; below a verb without verbs of its own, words are arguments."""
    unknown = []
    for words in VERBS.findall(text):
        command = tator()
        for count, word in enumerate(words.split(), 1):
            if not (verbs := getattr(command, "commands", None)):
                break
            if word not in verbs:
                unknown.append(" ".join(["tator", *words.split()[:count]]))
                break
            command = verbs[word]
    return unknown


def test_verbs_of_groups_count_and_unknown_ones_are_found() -> None:
    known = (
        "`tator up`, `tator jobs list`, `tator models activate V --project 3`, `tator jobs`, `tator train clip --here`"
    )
    assert unknown_verbs(f"{known}\n$ tator connect --project 3\nTOKEN=x tator assists --project 3 refine") == []
    assert unknown_verbs("`tator jobs lst`, `tator fly`") == ["tator jobs lst", "tator fly"]
    assert unknown_verbs("first:\ntator models activte V\nand then tator models is fine") == ["tator models activte"]


def test_settings_of_a_training_are_all_told_with_their_defaults() -> None:
    table = re.findall(r"^\| `--([a-z-]+)` \| ([^|]+) \|", (ROOT / "docs" / "training.md").read_text(), re.M)
    spoken: dict[object, str] = {None: "none", True: "on", False: "off"}
    told = {
        name.replace("_", "-"): spoken[field.default]
        if field.default is None or isinstance(field.default, bool)
        else f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
        for name, field in HeadTraining.model_fields.items()
    }  # fmt: skip
    assert dict(table) == told and len(table) == len(told)


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"`make ([a-z-]+)", page.read_text()):
            assert re.search(rf"^{target}:", makefile, re.M), f"{page.name} names `make {target}`"


def test_weights_are_small_enough_to_ship() -> None:
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert files and all(path.stat().st_size <= 10 * 2**20 for path in files)


def test_no_download_addresses_and_no_paths_of_a_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not {"uv.lock", "poetry.lock", "package-lock.json"} & {Path(name).name for name in listed}
    for name in listed:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".txt", ".toml", ".yml", ".json", ""} and path.is_file():
            assert str(ROOT.parent) + "/" not in path.read_text(errors="replace") or ROOT.parent == Path("/"), name
