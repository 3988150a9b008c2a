"""The verb ``settings``: what holds here, and a file to change it with."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tator_sdk.env_file import env_example
from tator_sdk.settings import Settings
from tator_sdk.settings_list import origins, settings_list, written


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(settings)


def settings(
    env: Annotated[
        bool, typer.Option("--env", help="Print a file .env with every setting, its help and default.")
    ] = False,
    changed: Annotated[bool, typer.Option("--changed", help="Only what differs from its default.")] = False,
) -> None:
    """Show every setting: its value here, and where that comes from. Secrets are never shown.

    Example: tator settings --env > .env
    """
    if env:
        typer.echo(env_example(), nl=False)
        return
    now = Settings()
    where = origins(now)
    table = Table("setting", "value", "from", "help", box=None, pad_edge=False)
    for one in settings_list():
        if changed and where[one.field] == "default":
            continue
        table.add_row(one.names[0], escape(written(getattr(now, one.field))), where[one.field], escape(one.help))
    Console(highlight=False).print(table)
