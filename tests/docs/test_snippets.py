"""What pages show besides commands is read by what reads it in earnest: settings, tags, code, tables of files."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from pathlib import Path

import pytest
from defusedxml.ElementTree import fromstring

from label_config.build import build, template_names
from label_config.reader import read
from tator_sdk.env_file import COMPOSE, COMPOSE_CHOICES
from tator_sdk.settings import Settings
from tests.docs.commands import PAGES, ROOT, blocks

GIVEN = re.compile(r"`((?:TATOR|QWEN|SAM3|SAM|CLIP|LABEL_STUDIO|REDIS)_[A-Z0-9_]+)=([^`\s…]+)`")
TAG = re.compile(r"`(<[A-Z][A-Za-z]+ [^`]*>)`")
ATTRIBUTE = re.compile(r'`(model_[a-z_]+)="([^"`]*)"')
OTHERS = {name for name, *_ in (*COMPOSE, *COMPOSE_CHOICES)}


def test_settings_with_a_value_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(page.name, *pair) for page in PAGES for pair in GIVEN.findall(page.read_text())]
    assert len(found) > 5
    for page, name, value in found:
        if name in OTHERS or value == "":
            continue
        for other in ("TATOR_PASSWORD", "TATOR_ENGINE_KEY"):
            monkeypatch.setenv(other, "x" * 20)
        monkeypatch.setenv(name, value.partition("|")[0])
        known = {f"TATOR_{field.upper()}" for field in Settings.model_fields} | aliases()
        assert name in known, f"{page}: {name} is no setting"
        Settings()
        monkeypatch.delenv(name)


def aliases() -> set[str]:
    """Other names of settings."""
    given = [field.validation_alias for field in Settings.model_fields.values()]
    return {str(one) for alias in given if alias is not None for one in getattr(alias, "choices", ())}


def test_env_example_is_read_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = re.findall(r"^(?:# )?([A-Z0-9_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.M)
    assert len(lines) > 60
    for name, value in lines:
        if value and not name.startswith("POSTGRES"):
            monkeypatch.setenv(name, value)
    assert Settings(home=os.devnull).port == 9090  # type: ignore[arg-type]


def test_tags_that_are_written_out_are_xml() -> None:
    tags = [(page.name, tag) for page in PAGES for tag in TAG.findall(page.read_text())]
    assert tags
    for page, tag in tags:
        try:
            fromstring(tag if tag.endswith("/>") else f"{tag}</{re.findall(r'[A-Za-z]+', tag)[0]}>")
        except Exception as error:
            raise AssertionError(f"{page}: {tag}: {error}") from error


def test_attributes_of_the_pages_are_understood() -> None:
    files = [path for one in ("label_config", "tator_ml") for path in (ROOT / one).rglob("*.py")]
    text = "\n".join(path.read_text() for path in files)
    for page in PAGES:
        for name, _ in ATTRIBUTE.findall(page.read_text()):
            assert f'"{name}"' in text or f'"{name.removeprefix("model_")}"' in text, (
                f"{page.name}: nobody reads {name}"
            )


def test_the_first_hour_names_every_template() -> None:
    (line,) = re.findall(r"^Templates: (.+)", (ROOT / "docs" / "first-hour.md").read_text(), re.M)
    assert set(re.findall(r"`(\w+)`", line)) == set(template_names())


def test_a_reader_s_env_file_is_read_where_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("LABEL_STUDIO_URL=http://127.0.0.1:8123\nLABEL_STUDIO_API_KEY=abc\nTATOR_PASSWORD=\n")
    settings = Settings()
    assert settings.label_studio_url.endswith(":8123") and settings.password is None
    assert settings.label_studio_api_key is not None and settings.label_studio_api_key.get_secret_value() == "abc"


@pytest.mark.parametrize("template", template_names())
def test_templates_make_configurations_that_tator_reads(template: str) -> None:
    assert read(build(template, ["Car", "Person"], None)).controls


def test_code_blocks_compile() -> None:
    for page in PAGES:
        for block in blocks(page):
            if block.language == "python":
                ast.parse(block.text, f"{page.name}:{block.line}")
            elif block.language == "toml":
                tomllib.loads(block.text)
            else:
                assert block.language == "", f"{page.name}:{block.line}: no test reads {block.language}"


def test_folders_and_files_that_pages_name_exist() -> None:
    for page in PAGES:
        for name in re.findall(
            r"`((?:tator_ml|tator_sdk|training|label_config|tests|deploy|benchmarks|demo)/[\w./-]+)`", page.read_text()
        ):
            assert (ROOT / name).exists() or page.name == "extending.md", f"{page.name} names {name}"


def test_configurations_of_proxies_are_those_of_the_files() -> None:
    shown = {re.sub(r"\s+", " ", block.text).strip() for block in blocks(ROOT / "docs" / "remote-gpu.md")}
    for path in (ROOT / "deploy" / "proxy").iterdir():
        assert re.sub(r"\s+", " ", path.read_text()).strip() in shown, path.name
