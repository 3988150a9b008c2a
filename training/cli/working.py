"""What verbs that train share: the options of where they run, and whether a worker could do it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from tator_sdk.settings import Settings

INTERRUPTED = 130  # what shells report of a command that Ctrl-C ended
WHERE = "Where it runs and what it leaves"
"""Heading in the help."""

Here = Annotated[
    bool,
    typer.Option("--here", help="Train in this process, whether a worker answers or not.", rich_help_panel=WHERE),
]
Detach = Annotated[
    bool, typer.Option("--detach", help="Only start it with a worker, and print its id.", rich_help_panel=WHERE)
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Read and count what there is to learn; train nothing.", rich_help_panel=WHERE),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the log too.", rich_help_panel=WHERE)]


def worker_answers(settings: Settings, console: Console) -> bool:
    """Whether a worker lives; where none does, it is said that this process does the work."""
    from tator_ml.jobs.connection import living_workers, reached
    from tator_ml.running.redis_server import redis_answers

    if redis_answers(settings):
        with reached(settings) as connection:
            if living_workers(connection):
                return True
    console.print("No worker answers, so it is trained here; `tator up` or `tator worker` starts one.")
    return False
