"""The ``tator`` command. Each installed package adds its verbs through the entry-point group."""

from __future__ import annotations

import functools
import logging
import os
import sys
from importlib.metadata import entry_points

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from tator_sdk.disk import FULL, disk_is_full
from tator_sdk.errors import TatorError

GROUP = "tator.commands"

app = typer.Typer(
    name="tator",
    help="Assisted labelling for Label Studio: a click becomes a box, a mask and a class.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _start() -> None:
    """Assisted labelling for Label Studio.

    First `tator up` beside a Label Studio that runs, then `tator connect --project N`.
    `tator doctor` checks the whole chain and says how to mend what is wrong.
    """


@functools.cache
def load_commands() -> typer.Typer:
    """Import the modules that registered verbs; each has ``register(app)``.

    A module whose extra is not installed is left out: the laptop side works without torch or Redis.
    """
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            entry.load().register(app)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] in {"label_config", "tator_sdk", "tator_ml", "training"}:
                raise
            logging.getLogger(__name__).debug("verbs of %s left out: %s", entry.name, error)
    return app


def let_waiting_threads_sleep() -> None:
    """Have torch's threads sleep where they wait for each other; before torch is imported, which reads it then.

    By default (libgomp's, too) they spin. As soon as anything else wants the same cores, such as Label Studio or a
    training, those that spin keep away the one they wait for: a click took ten times as long, on twice the cores.
    Alone on a machine sleeping costs a tenth. What the environment says is left.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def main() -> None:
    """Run the command; errors meant for people are printed as their sentence."""
    let_waiting_threads_sleep()
    try:
        load_commands()()
    except TatorError as error:
        Console(stderr=True).print(f"[bold red]tator:[/] {escape(str(error))}", highlight=False)
        sys.exit(1)
    except OSError as error:
        if not disk_is_full(error):
            raise
        Console(stderr=True).print(f"[bold red]tator:[/] {FULL}", highlight=False)
        sys.exit(1)
    except ValidationError as error:
        console = Console(stderr=True)
        for problem in error.errors():
            name = ".".join(str(part) for part in problem["loc"]) or "settings"
            console.print(f"[bold red]tator:[/] {escape(name)}: {escape(problem['msg'])}", highlight=False)
        sys.exit(2)
