"""Every setting as people read it: its names, its help, its default, and where its value comes from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from dotenv import dotenv_values
from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo

from tator_sdk.request_fields import bounds_in_words, sections_of
from tator_sdk.settings import Settings

ORIGINS = "TATOR_SETTINGS_FROM"
"""Environment variable in which `tator up` tells its parts where settings came from, since they get all of them."""
PREFIX = "TATOR_"

Origin = Literal["default", "environment", ".env", "command line"]


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        field: of :class:`Settings`.
        section: heading that it stands below.
        names: of its environment variable, Tator's own first, then those of other programs.
        help: a sentence.
        allowed: bounds or choices in words; empty where anything goes.
        default: as it would be written; empty where there is none.
        secret: whether its value is shown to nobody.
    """

    field: str
    section: str
    names: tuple[str, ...]
    help: str
    allowed: str
    default: str
    secret: bool


def settings_list() -> tuple[Setting, ...]:
    """All settings in the order of the model."""
    return tuple(
        _setting(name, section, Settings.model_fields[name])
        for section, names in sections_of(Settings)
        for name in names
    )


def written(value: Any) -> str:
    """A value as it stands in an environment variable; of a secret only whether there is one."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return "set" if value.get_secret_value() else ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return json.dumps([str(part) for part in value])
    return f"{value:g}" if isinstance(value, float) else str(value)


def origins(settings: Settings, environ: Mapping[str, str] = os.environ) -> dict[str, Origin]:
    """Where each value comes from.

    Args:
        settings: that were read in this process.
        environ: its environment.
    """
    told = _told(environ)
    if told:
        return told
    in_environment = {name.upper() for name, value in environ.items() if value}
    file = Settings.model_config.get("env_file")
    in_file = {name.upper() for name, value in dotenv_values(str(file)).items() if value} if file else set()
    found: dict[str, Origin] = {}
    for one in settings_list():
        # our own name goes before others, wherever it stands; in the environment before the file for the same name
        found[one.field] = next(
            (where for where, names in _places(in_environment, in_file) if names & set(one.names)),
            "default" if written(getattr(settings, one.field)) == _default_now(one.field) else "command line",
        )
    return found


def _places(in_environment: set[str], in_file: set[str]) -> Iterator[tuple[Origin, set[str]]]:
    yield "environment", in_environment
    yield ".env", in_file


def _told(environ: Mapping[str, str]) -> dict[str, Origin] | None:
    try:
        told = json.loads(environ.get(ORIGINS, ""))
    except ValueError:
        return None
    usable = isinstance(told, dict) and set(told) == set(Settings.model_fields)
    return told if usable and set(told.values()) <= set(get_args(Origin)) else None


def _default_now(name: str) -> str:
    return written(Settings.model_fields[name].get_default(call_default_factory=True))


def _setting(name: str, section: str, field: FieldInfo) -> Setting:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    secret = SecretStr in (field.annotation, *get_args(field.annotation))
    # a folder of whoever runs this is no default to print
    default = "" if field.default_factory is not None else written(field.get_default())
    allowed = ", ".join(map(str, choices)) or bounds_in_words(field)
    return Setting(name, section, names_of(name, field), field.description or "", allowed, default, secret)


def names_of(name: str, field: FieldInfo) -> tuple[str, ...]:
    """Environment variables that set a field, Tator's own first."""
    alias = field.validation_alias
    others = [str(one) for one in alias.choices] if isinstance(alias, AliasChoices) else []
    return tuple(dict.fromkeys([f"{PREFIX}{name.upper()}", *others]))


def env_path() -> Path:
    """The file that is read besides the environment."""
    return Path(str(Settings.model_config.get("env_file"))).absolute()
