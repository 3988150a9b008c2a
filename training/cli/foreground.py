"""A training in this process, with a bar. Apart from the verbs, whose start needs nothing of what jobs stand on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from tator_ml.cli.jobs import progress_columns
from tator_sdk.settings import Settings
from training.cli.working import INTERRUPTED
from training.job import LocalJob


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
