"""What trainings of SAM 3 keep on disk, by scope, and giving it back; never what is active, runs or waits."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from tator_ml.jobs.connection import reached
from tator_ml.jobs.records import OPEN, JobError
from tator_ml.runs import RunError
from tator_ml.sam3.registry import MODEL, sam3_registry
from tator_sdk.settings import Settings
from training.checkpoints import COMPLETE, checkpoints_in
from training.sam3.begun import Begun, is_training, trainings
from training.sam3.checkpoints import OPTIMIZER

Scope = Literal["checkpoints", "optimizer", "best", "models", "runs"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
HERE = "-here-"
"""In the id of a job that a terminal ran."""


@dataclass(frozen=True)
class Stored:
    """Something that a training keeps.

    Attributes:
        scope: what it is.
        owner: id of the job, or of the run.
        project: that it belongs to; None for a data set's.
        paths: of files and folders.
        bytes: on disk.
        held: why it is not deleted, in words; None where it may be.
    """

    scope: Scope
    owner: str
    project: int | None
    paths: tuple[Path, ...]
    bytes: int
    held: str | None


def stored(settings: Settings, project: int | None = None) -> list[Stored]:
    """Everything that trainings keep, of a project or of all, by owner."""
    found = [*_of_jobs(settings), *_of_runs(settings)]
    return [one for one in found if one.bytes and project in (None, one.project)]


def deletable(found: Sequence[Stored], scope: Scope | Literal["all"]) -> list[Stored]:
    """What of a scope may be deleted; a checkpoint goes with its optimizer's state."""
    wanted: Mapping[str, Collection[str]] = {"all": SCOPES, "checkpoints": ("checkpoints", "optimizer")}
    return [one for one in found if one.scope in wanted.get(scope, (scope,)) and one.held is None]


def delete(settings: Settings, chosen: Sequence[Stored]) -> int:
    """Delete what was chosen, but for what has become active or begun to run since.

    Returns:
        Bytes that were given back.
    """
    registry = sam3_registry(settings)
    freed = 0
    for one in chosen:
        if one.scope == "runs":
            try:
                registry.remove(one.owner)
            except RunError:
                continue
        elif is_training(settings.home / "jobs" / one.owner):
            continue
        else:
            _remove(one)
        freed += one.bytes
    return freed


def _remove(one: Stored) -> None:
    for path in one.paths:
        if one.scope == "optimizer":  # what is left is promoted, but not gone on from
            (path.parent / COMPLETE).unlink(missing_ok=True)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _of_jobs(settings: Settings) -> Iterator[Stored]:
    waiting = _open_jobs(settings)
    for job, folder in trainings(settings).items():
        held = _held(job, folder, waiting)
        try:
            project = Begun.read(folder).request.get("project")
        except (OSError, ValueError, TypeError):
            project = None
        checkpoints = tuple(checkpoints_in(folder).glob("*"))
        optimizers = tuple(path / OPTIMIZER for path in checkpoints if (path / OPTIMIZER).exists())
        states = bytes_of(optimizers)
        yield Stored("checkpoints", job, project, checkpoints, bytes_of(checkpoints) - states, held)
        yield Stored("optimizer", job, project, optimizers, states, held)
        best = (*folder.glob("best-*"), *folder.glob(".best-*"))
        yield Stored("best", job, project, best, bytes_of(best), held)
        models = (*folder.glob(MODEL), *folder.glob(f".{MODEL}*"))
        yield Stored("models", job, project, models, bytes_of(models), held)


def _of_runs(settings: Settings) -> Iterator[Stored]:
    registry = sam3_registry(settings)
    active = registry.where_active()
    for entry in registry.entries()[1:]:
        used = ", ".join(map(str, sorted(active[entry.id])))
        held = f"active in project {used}" if used else None
        if entry.folder is not None:
            yield Stored("runs", entry.id, entry.project, (entry.folder,), bytes_of([entry.folder]), held)


def _held(job: str, folder: Path, waiting: frozenset[str] | None) -> str | None:
    if is_training(folder):
        return "is being trained"
    if HERE in job:
        return None
    if waiting is None:
        return "may go on: Redis does not answer, `tator up` starts it"
    return "is not over" if job in waiting else None


def _open_jobs(settings: Settings) -> frozenset[str] | None:
    """Ids of jobs that run or wait; None where that cannot be known."""
    try:
        with reached(settings) as connection:
            return frozenset(one.decode() for one in cast(set[bytes], connection.smembers(OPEN)))
    except JobError:
        return None


def bytes_of(paths: Sequence[Path]) -> int:
    """What files and folders hold on disk."""
    return sum(
        file.lstat().st_size
        for path in paths
        for file in ([path] if path.is_file() else path.rglob("*"))
        if file.is_file()
    )
