"""What the verbs about models share: a project's number, and how a sentence is said."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

Project = Annotated[int, typer.Option("--project", "-p", min=1, help="The project's number in Label Studio's address.")]
SomeProject = Annotated[int | None, typer.Option("--project", "-p", min=1, help="The project's number.")]


def check_server_extra() -> None:
    """Refuse where the backend's extra is not installed: verbs import it when they run, and are left out without it.

    Raises:
        ModuleNotFoundError: it is not, or not whole.
    """
    for name in ("rq", "redis", "flask", "msgspec", "lmdb", "psutil", "safetensors"):
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def say(sentence: str) -> None:
    """Print a sentence as it stands."""
    Console(highlight=False, soft_wrap=True).print(escape(sentence))
