"""Verbs about jobs: ``jobs list``, ``show``, ``log``, ``cancel``, ``retry``; and following one."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from tator_ml.cli.serving import Home, read_settings
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

if TYPE_CHECKING:
    from tator_ml.jobs.records import JobRecord

POLL_SECONDS = 0.3
COLOURS = {"queued": "cyan", "running": "blue", "done": "green", "failed": "red", "cancelled": "yellow"}

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, or its beginning.")]

jobs = typer.Typer(name="jobs", help="Jobs: training, relabelling and what else takes long.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(jobs)


@jobs.command("list")
def list_jobs(
    project: Annotated[int | None, typer.Option("--project", "-p", help="Only those of this project.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Not only the newest twenty.")] = False,
    home: Home = None,
) -> None:
    """Show jobs, the newest first."""
    from tator_ml.jobs.connection import reached
    from tator_ml.jobs.records import JobRecords

    with reached(read_settings(home=home)) as connection:
        records = JobRecords(connection).list(project, 10_000 if everything else 20)
    console = Console()
    if not records:
        console.print("There are no jobs yet.")
        return
    table = Table("id", "status", "progress", "title", "started", "took", box=None, pad_edge=False)
    table.columns[0].no_wrap = True  # it is there to be copied
    for one in records:
        state = f"[{COLOURS[one.status]}]{one.status}[/]"
        table.add_row(one.id, state, _steps(one), escape(one.title), _clock(one.started), _took(one))
    console.print(table)


@jobs.command()
def show(job_id: JobId, home: Home = None) -> None:
    """Show how one job stands."""
    from tator_ml.jobs.connection import reached
    from tator_ml.jobs.records import JobRecords

    with reached(read_settings(home=home)) as connection:
        record = JobRecords(connection).find(job_id)
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "id": record.id,
        "title": record.title,
        "status": record.status,
        "progress": f"{_steps(record)} {record.what}".strip(),
        "error": record.error or "",
        "result": json.dumps(record.result, indent=2) if record.result else "",
        "request": json.dumps(record.request),
        "created": _clock(record.created),
        "started": _clock(record.started),
        "ended": _clock(record.ended),
        "took": _took(record),
        "attempts": str(record.attempt) if record.attempt > 1 else "",
        "host": record.host or "",
    }
    for name, value in rows.items():
        if value:
            table.add_row(f"[bold]{name}[/]", escape(value))
    Console().print(table)


@jobs.command()
def log(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends; Ctrl-C stops.")] = False,
    home: Home = None,
) -> None:
    """Print a job's log."""
    from tator_ml.jobs.connection import reached
    from tator_ml.jobs.records import JobRecords

    console = Console(highlight=False, soft_wrap=True)
    with reached(read_settings(home=home)) as connection:
        records = JobRecords(connection)
        found, after = records.find(job_id).id, 0
        while True:
            over = records.get(found).over  # asked first, so that no line is missed
            lines, after = records.log_page(found, after)
            for line in lines:
                console.print(escape(line))
            if over or not follow:
                return
            time.sleep(POLL_SECONDS)


@jobs.command()
def cancel(job_id: JobId, home: Home = None) -> None:
    """End a job: a waiting one at once, a running one at its next step."""
    from tator_ml.jobs.connection import reached
    from tator_ml.jobs.queue import cancel as cancel_job
    from tator_ml.jobs.records import JobRecords

    settings = read_settings(home=home)
    with reached(settings) as connection:
        before = JobRecords(connection).find(job_id)
    if before.over:
        said = f"{before.id} had ended already: {before.status}."
    else:
        after = cancel_job(settings, before.id)
        said = f"{after.id} is cancelled." if after.over else f"{after.id} is asked to stop at its next step."
    Console(highlight=False).print(said)


@jobs.command()
def retry(job_id: JobId, home: Home = None) -> None:
    """Start a job like one that has ended."""
    from tator_ml.jobs.connection import reached
    from tator_ml.jobs.queue import retry as retry_job
    from tator_ml.jobs.records import JobRecords

    settings = read_settings(home=home)
    with reached(settings) as connection:
        before = JobRecords(connection).find(job_id)
    after = retry_job(settings, before.id)
    Console(highlight=False).print(f"{after.id} is {after.status}.")


def progress_columns() -> tuple[ProgressColumn, ...]:
    """What a job's bar shows, wherever the job runs."""
    return (
        TextColumn("[bold]{task.description}[/]"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


def follow(settings: Settings, job_id: str, console: Console) -> JobRecord:
    """Draw a job's progress until it ends. Ctrl-C stops the drawing, not the job.

    Args:
        settings: of this installation.
        job_id: of the job.
        console: to draw on.

    Returns:
        The job as it stands at the end of the drawing.

    Raises:
        JobError: there is no such job, or Redis does not answer.
    """
    from tator_ml.jobs.connection import living_workers, reached
    from tator_ml.jobs.records import JobRecords

    columns = progress_columns()
    with reached(settings) as connection:
        records = JobRecords(connection)
        record = records.get(job_id)
        try:
            with Progress(*columns, console=console, transient=True) as bars:
                bar = bars.add_task(escape(record.title), total=None)
                while not record.over:
                    idle = record.status == "queued" and not living_workers(connection)
                    what = "waiting for a worker; start one with `tator worker`" if idle else record.what
                    said = f"{record.title}: {what or record.status}"
                    bars.update(bar, description=escape(said), completed=record.done, total=record.total or None)
                    time.sleep(POLL_SECONDS)
                    record = records.get(job_id)
        except KeyboardInterrupt:
            console.print(
                f"It goes on: `tator jobs show {job_id}` shows it, `tator jobs cancel {job_id}` ends it.",
                highlight=False,
            )
            return record
    why = f": {record.error}" if record.error else f" after {_took(record)}"
    console.print(f"[{COLOURS[record.status]}]{record.status}[/] {escape(record.title + why)}", highlight=False)
    return record


def _steps(record: JobRecord) -> str:
    if not record.total:
        return ""
    return f"{record.done}/{record.total}"


def _clock(moment: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment)) if moment else ""


def _took(record: JobRecord) -> str:
    if record.started is None:
        return ""
    seconds = int((record.ended or time.time()) - record.started)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def worker_lives(settings: Settings) -> bool:
    """Whether any worker takes jobs; False where Redis does not answer."""
    from tator_ml.jobs.connection import living_workers, reached
    from tator_ml.jobs.records import JobError

    try:
        with reached(settings) as connection:
            return living_workers(connection) > 0
    except JobError:
        return False


def refuse_while_open(settings: Settings, job_id: str) -> None:
    """Let nobody undo a job that has not ended.

    Raises:
        TatorError: it waits or runs; the message says how to end it.
    """
    from tator_ml.jobs.connection import reached
    from tator_ml.jobs.records import JobError, JobRecords

    try:
        with reached(settings) as connection:
            record = JobRecords(connection).get(job_id)
    except JobError:  # it ran without Redis, or long ago
        return
    if not record.over:
        raise TatorError(f"{job_id} is {record.status}; `tator jobs cancel {job_id}` ends it, then undo it.")
