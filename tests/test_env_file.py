"""`.env.example` and what is told of settings are those of the model."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from dotenv import dotenv_values
from pydantic import SecretStr
from typer.testing import CliRunner

from tator_sdk.cli import load_commands
from tator_sdk.env_file import COMPOSE, COMPOSE_CHOICES, env_example
from tator_sdk.settings import Settings
from tator_sdk.settings_list import ORIGINS, origins, settings_list, written

EXAMPLE = Path(__file__).parents[1] / ".env.example"


def test_the_file_in_the_repository_is_that_of_the_model() -> None:
    assert EXAMPLE.read_text() == env_example(), "run `make env-example`"


def test_every_setting_stands_in_it_once_and_uncommented_it_changes_nothing(tmp_path: Path) -> None:
    lines = [
        line.removeprefix("# ")
        for line in env_example().splitlines()
        if "=" in line and " " not in line[2:].split("=")[0]
    ]
    given = dotenv_values(stream=io.StringIO("\n".join(lines)))
    names = [line.split("=")[0] for line in lines]
    assert len(names) == len(set(names))
    for one in settings_list():
        assert set(one.names) & set(names), f"{one.field} is missing"
    others = {name for name, _, _ in (*COMPOSE, *COMPOSE_CHOICES)}
    assert set(names) <= {name for one in settings_list() for name in one.names} | others
    (tmp_path / ".env").write_text("\n".join(lines))
    assert given["TATOR_PORT"] == "9090"
    assert Settings(_env_file=tmp_path / ".env") == Settings(_env_file=None)


def test_an_empty_password_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TATOR_PASSWORD", "")
    assert Settings().password is None
    with pytest.raises(ValueError, match="TATOR_PASSWORD"):
        Settings(host="0.0.0.0")
    with pytest.raises(ValueError, match="TATOR_PASSWORD"):
        Settings(host="0.0.0.0", password=SecretStr(""))


def test_where_values_come_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("TATOR_ENCODER=timm:x\nREDIS_URL=redis://127.0.0.1/5\nTATOR_PORT=9300\n")
    monkeypatch.setenv("SAM_VARIANT", "mobile_sam")
    monkeypatch.setenv("TATOR_PORT", "9200")
    where = origins(Settings())
    assert (where["encoder"], where["redis_url"]) == (".env", ".env")
    assert (where["segmenter"], where["port"], where["offline"]) == ("environment", "environment", "default")
    assert origins(Settings(offline=True))["offline"] == "command line"


def test_parts_of_a_running_tator_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {**origins(Settings()), "offline": ".env"}
    monkeypatch.setenv(ORIGINS, json.dumps(told))
    assert origins(Settings()) == told
    monkeypatch.setenv(ORIGINS, '{"offline": "nowhere"}')
    assert origins(Settings())["offline"] == "default"


def test_secrets_are_never_written() -> None:
    assert written(SecretStr("hush")) == "set" and written(SecretStr("")) == ""


def test_the_verb_shows_values_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TATOR_PASSWORD", "hush")
    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(load_commands(), ["settings", "--changed"])
    assert shown.exit_code == 0 and "TATOR_PASSWORD" in shown.output and "hush" not in shown.output
    assert CliRunner().invoke(load_commands(), ["settings", "--env"]).output == env_example()
