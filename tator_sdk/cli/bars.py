"""The progress bar of long work: how far, how fast, how long still."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class Report(Protocol):
    """Takes how many steps are done, of how many (0: unknown), and what is done."""

    def __call__(self, done: int, total: int, doing: str = ..., /) -> None:
        """Show it."""


class RateColumn(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        """The rate, or nothing before the first steps."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")


@contextmanager
def progress_bar(console: Console, what: str) -> Iterator[Report]:
    """A bar while something lasts, where there is a terminal; gives what it is told by."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), RateColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task(escape(what), total=None)

        def report(done: int, total: int, doing: str = what, /) -> None:
            bars.update(bar, description=escape(doing), completed=done, total=total or None)

        yield report
