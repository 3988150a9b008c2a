"""What verbs share whose job goes over a project: run here or by a worker, followed, and taken back."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console

from tator_ml.cli.jobs import follow, refuse_while_open, worker_lives
from tator_sdk.cli.bars import progress_bar
from tator_sdk.cli.options import option_name
from tator_sdk.errors import TatorError
from tator_sdk.requests import JobRequest
from tator_sdk.settings import Settings

Request = TypeVar("Request", bound=JobRequest)
Report = dict[str, Any]


def made(kind: type[Request], /, **fields: Any) -> Request:
    """A request from options.

    Raises:
        typer.BadParameter: they do not go together.
    """
    try:
        return kind(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        hint = option_name(str(first["loc"][0])) if first["loc"] else None
        raise typer.BadParameter(first["msg"].removeprefix("Value error, "), param_hint=hint) from error


class ProjectJob:
    """One run of a verb over a project."""

    def __init__(
        self, settings: Settings, console: Console, kind: str, request: JobRequest, project: int, undo: str
    ) -> None:
        """Nothing happens yet.

        Args:
            settings: of this installation.
            console: to print on.
            kind: of the job.
            request: what is asked for.
            project: its number.
            undo: command line that takes a job back, but for its id.
        """
        self._settings = settings
        self._console = console
        self._kind = kind
        self._request = request
        self._project = project
        self._undo = undo

    def run(
        self,
        here: bool,
        detach: bool,
        work: Callable[[Any], Report],
        changed: Callable[[str], bool] = lambda job_id: True,
    ) -> Report | None:
        """Do it: in this process where that is wished or no worker lives, else as a queued job.

        Args:
            here: in this process.
            detach: start it, and do not wait.
            work: does it in this process, given the job.
            changed: whether a job of that id has changed anything that could be taken back.

        Returns:
            The report; None where it is not there yet.

        Raises:
            typer.Exit: the job failed or was cancelled.
            TatorError: in a sentence.
        """
        if here and detach:
            raise TatorError("--here works in this process, so there is nothing to detach from; leave one of them out.")
        if here or not (detach or worker_lives(self._settings)):
            return self._here(work, changed)
        return self._queued(detach, changed)

    def _here(self, work: Callable[[Any], Report], changed: Callable[[str], bool]) -> Report:
        from training.job import LocalJob

        job_id = f"{self._kind}-{self._project}-here-{secrets.token_hex(4)}"
        try:
            with progress_bar(self._console, "starting") as progress:
                return work(LocalJob(self._settings, job_id, progress))
        except (KeyboardInterrupt, TatorError):
            if changed(job_id):
                self.print_how_to_undo(job_id)
            raise

    def _queued(self, detach: bool, changed: Callable[[str], bool]) -> Report | None:
        from tator_ml.launch import is_for, launch

        record = launch(self._settings, self._request)[0]
        if not is_for(record, self._request):
            self._console.print(
                f"{record.id} works on this project already; yours starts when it has ended (`tator jobs list`)."
            )
            return None
        if detach:
            self._console.print(f"{record.id} is {record.status}; `tator jobs show {record.id}` shows how it stands.")
            return None
        record = follow(self._settings, record.id, self._console)
        if record.over and record.status != "done":
            if changed(record.id):
                self.print_how_to_undo(record.id)
            raise typer.Exit(1)
        return record.result

    def print_how_to_undo(self, job_id: str) -> None:
        """Print the command that takes a job back; whole, as it is there to be copied."""
        self._console.print(f"To take back whatever was changed: {self._undo} {job_id}", soft_wrap=True)


def checked_id(settings: Settings, kind: str, job_id: str) -> None:
    """Let only a whole id of an ended job of this kind be undone.

    Raises:
        TatorError: it is none; other predictions than a job's own are never deleted.
    """
    if not re.fullmatch(kind + r"-[A-Za-z0-9-]{1,80}", job_id):
        raise TatorError(
            f"'{job_id}' is not the whole id of a {kind} job, such as {kind}-3-7f2a; see `tator jobs list`."
        )
    refuse_while_open(settings, job_id)


def project_of(settings: Settings, kind: str, job_id: str) -> int:
    """The project that a job worked on.

    Raises:
        TatorError: nothing says so.
    """
    try:
        return int(json.loads((settings.home / "jobs" / job_id / "report.json").read_text())["project"])
    except (OSError, ValueError, KeyError):
        pass
    if found := re.match(kind + r"-(\d+)-", job_id):
        return int(found[1])
    raise TatorError(f"It is not known which project {job_id} belongs to; add --project N.")


def delete_pushed(settings: Settings, console: Console, job_id: str, project: int, yes: bool) -> bool:
    """Delete exactly the predictions of a job, after a look at how many there are.

    Returns:
        Whether there were any.

    Raises:
        typer.Exit: the person says no.
        StudioError: Label Studio does not answer.
    """
    from training.pushed import delete_predictions, predictions_of

    numbers = predictions_of(settings, project, job_id)
    if not numbers:
        return False
    if not yes and not typer.confirm(f"Delete all predictions of {job_id} in project {project} ({len(numbers)})?"):
        console.print("Nothing was deleted.")
        raise typer.Exit(1)
    with progress_bar(console, "deleting") as watch:
        delete_predictions(settings, numbers, watch)
    console.print(f"Predictions deleted from project {project}: {len(numbers)} of {job_id}; annotations stay.")
    return True
