"""What verbs that train share: a job in this process with a bar, and whether a worker could do it instead."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from tator_ml.cli.jobs import progress_columns
from tator_ml.jobs.connection import living_workers, reached
from tator_ml.running.redis_server import redis_answers
from tator_sdk.settings import Settings
from training.job import LocalJob

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


class _Foreground(LocalJob):
    """A job whose log is shown, where asked for."""

    def __init__(self, settings: Settings, job_id: str, bars: Progress, verbose: bool) -> None:
        self._bars = bars
        self._verbose = verbose
        self._bar = bars.add_task("beginning", total=None)
        super().__init__(settings, job_id, self._advance)

    def log(self, line: str) -> None:
        """See :meth:`Job.log`."""
        super().log(line)
        if self._verbose:
            self._bars.console.print(f"[dim]{escape(line)}[/]", soft_wrap=True)

    def _advance(self, done: int, total: int, what: str) -> None:
        self._bars.update(self._bar, description=escape(what), completed=done, total=total or None)


@contextlib.contextmanager
def foreground(settings: Settings, console: Console, verbose: bool, job_id: str, stopped: str) -> Iterator[LocalJob]:
    """A job in this process with a bar; Ctrl-C ends it with a sentence.

    Args:
        settings: of this installation.
        console: to show it on.
        verbose: whether its log is shown.
        job_id: names its folder.
        stopped: the sentence.

    Raises:
        typer.Exit: after Ctrl-C.
    """
    columns = progress_columns()
    folder = None
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
            job = _Foreground(settings, job_id, bars, verbose)
            folder = job.folder
            yield job
    except KeyboardInterrupt:
        console.print(stopped, soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        if folder is not None:
            with contextlib.suppress(OSError):  # it has left checkpoints, which stay
                folder.rmdir()


def worker_answers(settings: Settings, console: Console) -> bool:
    """Whether a worker lives; where none does, it is said that this process does the work."""
    if redis_answers(settings):
        with reached(settings) as connection:
            if living_workers(connection):
                return True
    console.print("No worker answers, so it is trained here; `tator up` or `tator worker` starts one.")
    return False
