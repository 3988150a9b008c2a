"""docker-compose.yml as values, with its variables filled in, for checks without a container engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tator_sdk.errors import TatorError

ROOT = Path(__file__).parents[1]
_VARIABLE = re.compile(r"\$(?P<escaped>\$)|\$\{(?P<name>\w+)(?:(?P<how>:[-?])(?P<word>[^}]*))?\}")
"""https://docs.docker.com/reference/compose-file/interpolation/, as far as the file uses it."""


def read_compose(variables: Mapping[str, str], path: Path = ROOT / "docker-compose.yml") -> dict[str, Any]:
    """The file with variables filled in.

    Args:
        variables: of ``.env``.
        path: of the file.

    Raises:
        TatorError: one that must be set is not.
    """
    filled: dict[str, Any] = _fill(yaml.safe_load(path.read_text()), variables)
    return filled


def variables_of(path: Path = ROOT / "docker-compose.yml") -> set[str]:
    """Names of the variables that the file takes."""
    return {found["name"] for found in _VARIABLE.finditer(path.read_text()) if found["name"]}


def _fill(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _fill(part, variables) for name, part in value.items()}
    if isinstance(value, list):
        return [_fill(part, variables) for part in value]
    if not isinstance(value, str):
        return value

    def put(found: re.Match[str]) -> str:
        if found["escaped"]:
            return "$"
        given = variables.get(found["name"], "")
        if not given and found["how"] == ":?":
            raise TatorError(f"{found['name']}: {found['word']}")
        return given or (found["word"] if found["how"] == ":-" else "")

    return _VARIABLE.sub(put, value)
