"""Choices that hold for one Label Studio project, seen by every process at its next request."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from tator_ml.engine.segmenters import published
from tator_sdk.errors import TatorError

ASSISTS = ("refine", "classify")
OUTPUTS = ("box", "polygon", "mask")


@dataclass(frozen=True)
class ProjectChoices:
    """Choices of a project; None leaves the decision to the tags and the defaults.

    Attributes:
        assists: of ``refine`` and ``classify``, what a prompt on this project gets.
        head: version of the active class head in the registry.
        train_after: annotations after which a head is trained by itself; 0 never.
        preload: whether pictures are made ready before they are opened.
        segmenter: name of the one that answers.
        output: ``box``, ``polygon`` or ``mask``: what points are answered with, where the configuration has a tag
            for it.
    """

    assists: tuple[str, ...] | None = None
    head: str | None = None
    train_after: int | None = None
    preload: bool | None = None
    segmenter: str | None = None
    output: str | None = None


@dataclass(frozen=True)
class Activation:
    """One change of a project's head.

    Attributes:
        at: seconds since the epoch.
        head: that became active, ``before`` the one it replaced; None is the default head.
        why: ``gate``, ``person``, ``rollback``, …
        figures: what the decision rested on.
    """

    at: float
    head: str | None
    before: str | None
    why: str
    figures: Mapping[str, Any]


class Projects:
    """Two small files for each project: its choices, replaced atomically, and the history of its heads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, project_id: int | None) -> ProjectChoices:
        """The choices of a project; defaults where none were made."""
        if project_id is None:
            return ProjectChoices()
        try:
            kept = json.loads((self._folder / f"{project_id}.json").read_text())
        except FileNotFoundError:
            return ProjectChoices()
        except ValueError as error:
            raise TatorError(
                f"The choices of project {project_id} cannot be read; delete {self._folder / str(project_id)}.json."
            ) from error
        assists = kept.get("assists")
        return ProjectChoices(
            assists=tuple(assists) if assists is not None else None,
            head=kept.get("head"),
            train_after=kept.get("train_after"),
            preload=kept.get("preload"),
            segmenter=kept.get("segmenter"),
            output=kept.get("output"),
        )

    def choose(self, project_id: int, **choices: Any) -> ProjectChoices:
        """Change some of a project's choices and leave the others.

        Raises:
            TatorError: an assist, output or segmenter that does not exist.
        """
        unknown = set(choices.get("assists") or ()) - set(ASSISTS)
        if unknown:
            raise TatorError(f"There is no assist '{min(unknown)}'; choose of {', '.join(ASSISTS)}.")
        if choices.get("output") not in (None, *OUTPUTS):
            raise TatorError(f"There is no output '{choices['output']}'; choose of {', '.join(OUTPUTS)}.")
        if choices.get("segmenter") is not None:
            published(choices["segmenter"])
        with self._alone(project_id):
            return self._write(project_id, **choices)

    def activate(
        self, project_id: int, head: str | None, why: str, figures: Mapping[str, Any] | None = None
    ) -> Activation:
        """Make a head the project's and write down why."""
        with self._alone(project_id):
            change = Activation(time.time(), head, self.get(project_id).head, why, dict(figures or {}))
            with self._history(project_id).open("a+b") as file:
                if file.tell() and _last_byte(file) != b"\n":  # the half line of a crash stays a line of its own
                    file.write(b"\n")
                file.write(json.dumps(asdict(change)).encode() + b"\n")
            self._write(project_id, head=head)
        return change

    def activations(self, project_id: int) -> list[Activation]:
        """How the project's head changed, oldest first."""
        try:
            lines = self._history(project_id).read_text().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                found.append(Activation(**json.loads(line)))
            except (ValueError, TypeError):  # the last line of a crash
                continue
        return found

    def _history(self, project_id: int) -> Path:
        return self._folder / f"{project_id}.heads.jsonl"

    def _write(self, project_id: int, **choices: Any) -> ProjectChoices:
        chosen = replace(self.get(project_id), **choices)
        handle, partial = tempfile.mkstemp(dir=self._folder)
        with os.fdopen(handle, "w") as file:
            json.dump(asdict(chosen), file)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).replace(self._folder / f"{project_id}.json")
        return chosen

    @contextmanager
    def _alone(self, project_id: int) -> Iterator[None]:
        """One process and thread at a time reads, changes and writes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f".{project_id}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)
