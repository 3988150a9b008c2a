"""Choices that hold for one Label Studio project, seen by every process at its next request."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

from tator_ml.engine.segmenters import published
from tator_ml.quality.comparison import MOST_SHARE, Comparison
from tator_sdk.errors import TatorError
from tator_sdk.files import write_durably
from tator_sdk.settings import Settings

ASSISTS = ("refine", "classify")
OUTPUTS = ("box", "polygon", "mask")
SAM3 = "sam3"
"""Name of the segmenter that has tuned versions of its own."""
Role = Literal["head", "qwen", "sam3"]
"""What a project has an active model for: the class head, and those that are asked in words and by concepts."""


@dataclass(frozen=True)
class KeptWords:
    """Words that are asked again on every picture of a project.

    Attributes:
        text: as typed; empty for all classes.
        field: name of the prompt field whose options hold for them; empty for the configuration's first.
    """

    text: str
    field: str = ""


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
        qwen: id of the active tuned Qwen in its registry.
        words: kept for the next pictures; None for none.
        sam3: id of the active tuned SAM 3 in its registry.
        comparison: that goes on, of labelling with and without assistance; None for none.
        installed: the installation's own segmenter, which is no choice of the project and not kept with them.
    """

    assists: tuple[str, ...] | None = None
    head: str | None = None
    train_after: int | None = None
    preload: bool | None = None
    segmenter: str | None = None
    output: str | None = None
    qwen: str | None = None
    words: KeptWords | None = None
    sam3: str | None = None
    comparison: Comparison | None = None
    installed: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What was chosen, as JSON values."""
        return {name: value for name, value in asdict(self).items() if name != "installed"}

    def assists_on(self, task: int | None) -> bool:
        """Whether a task gets assistance; one that is drawn for the comparison gets none."""
        return self.comparison is None or not self.comparison.draws(task)

    @property
    def concepts_by(self) -> str:
        """Name for the engine of the SAM 3 that finds phrases and exemplars."""
        return self.sam3 or SAM3

    @property
    def clicks_by(self) -> str | None:
        """Name for the engine of the segmenter that answers clicks; None for the engine's own."""
        if self.segmenter is None:
            return self.sam3 if self.installed == SAM3 else None
        return self.concepts_by if self.segmenter == SAM3 else self.segmenter


@dataclass(frozen=True)
class Activation:
    """One change of a project's model.

    Attributes:
        at: seconds since the epoch.
        version: that became active, ``before`` the one it replaced; None is the default model.
        why: ``gate``, ``person``, ``rollback``, …
        figures: what the decision rested on.
        by: the person who decided; empty where a program did, or on a command line.
    """

    at: float
    version: str | None
    before: str | None
    why: str
    figures: Mapping[str, Any]
    by: str = ""


class Projects:
    """A few small files for each project: its choices, replaced atomically, and the history of its models."""

    def __init__(self, folder: Path, installed: str | None = None) -> None:
        """Prepare.

        Args:
            folder: of the files.
            installed: the installation's own segmenter.
        """
        self._folder = folder
        self._installed = installed

    def get(self, project_id: int | None) -> ProjectChoices:
        """The choices of a project; defaults where none were made."""
        if project_id is None:
            return ProjectChoices(installed=self._installed)
        path = self._folder / f"{project_id}.json"
        try:
            return self._read(json.loads(path.read_text()))
        except FileNotFoundError:
            return ProjectChoices(installed=self._installed)
        except (ValueError, TypeError, AttributeError) as error:
            raise TatorError(
                f"The choices of project {project_id} cannot be read: put {path} back from a backup, or move it aside; "
                "without it the defaults answer."
            ) from error

    def _read(self, kept: Mapping[str, Any]) -> ProjectChoices:
        """What a file holds; names of a later version are passed over.

        Raises:
            TypeError, ValueError, AttributeError: it is something else.
        """
        assists, words, comparison = (kept.get(name) for name in ("assists", "words", "comparison"))
        return ProjectChoices(
            assists=tuple(assists) if assists is not None else None,
            head=kept.get("head"),
            train_after=kept.get("train_after"),
            preload=kept.get("preload"),
            segmenter=kept.get("segmenter"),
            output=kept.get("output"),
            qwen=kept.get("qwen"),
            words=KeptWords(**_known(KeptWords, words)) if words else None,
            sam3=kept.get("sam3"),
            comparison=Comparison(**_known(Comparison, comparison)) if comparison else None,
            installed=self._installed,
        )

    def choose(self, project_id: int, **choices: Any) -> ProjectChoices:
        """Change some of a project's choices and leave the others.

        Raises:
            TatorError: an assist, output or segmenter that does not exist, or a share that is none.
        """
        comparison = choices.get("comparison")
        if comparison is not None and not 0 < comparison.share <= MOST_SHARE:
            raise TatorError(f"At most {MOST_SHARE:.0%} of the tasks can go without assistance, and more than none.")
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
        self,
        project_id: int,
        version: str | None,
        why: str,
        figures: Mapping[str, Any] | None = None,
        role: Role = "head",
        by: str = "",
    ) -> Activation:
        """Make a model the project's and write down why."""
        with self._alone(project_id):
            before = getattr(self.get(project_id), role)
            change = Activation(time.time(), version, before, why, dict(figures or {}), by)
            with self._history(project_id, role).open("a+b") as file:
                if file.tell() and _last_byte(file) != b"\n":  # the half line of a crash stays a line of its own
                    file.write(b"\n")
                file.write(json.dumps(asdict(change)).encode() + b"\n")
            self._write(project_id, **{role: version})
        return change

    def activations(self, project_id: int, role: Role = "head") -> list[Activation]:
        """How the project's model changed, oldest first."""
        try:
            lines = self._history(project_id, role).read_text().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                kept = json.loads(line)
                if "head" in kept:  # written before there were other models than heads
                    kept["version"] = kept.pop("head")
                found.append(Activation(**kept))
            except (ValueError, TypeError):  # the last line of a crash
                continue
        return found

    def where_active(self, role: Role = "head") -> defaultdict[str, set[int]]:
        """Projects in which each version is active; none for others."""
        found: defaultdict[str, set[int]] = defaultdict(set)
        for path in self._folder.glob("*.json"):
            if path.stem.isdigit() and (version := getattr(self.get(int(path.stem)), role)):
                found[version].add(int(path.stem))
        return found

    def known(self) -> list[int]:
        """Projects for which anything was ever chosen or activated."""
        stems = (path.name.partition(".")[0] for path in self._folder.glob("[0-9]*.json*"))
        return sorted({int(stem) for stem in stems if stem.isdigit()})

    def active_one_after_the_other(self, project_id: int, role: Role = "head") -> list[str | None]:
        """Versions to go back through, the one that is active last; a rollback has taken one away."""
        history = self.activations(project_id, role)
        stack = [history[0].before] if history else []
        for one in history:
            if one.why == "rollback" and len(stack) > 1:
                stack.pop()
            if one.version != stack[-1]:  # what is activated again is no step
                stack.append(one.version)
        return stack

    def _history(self, project_id: int, role: Role) -> Path:
        return self._folder / f"{project_id}.{role}{'s' if role == 'head' else ''}.jsonl"

    def _write(self, project_id: int, **choices: Any) -> ProjectChoices:
        chosen = replace(self.get(project_id), **choices)
        write_durably(self._folder / f"{project_id}.json", json.dumps(chosen.as_json()).encode())
        return chosen

    @contextmanager
    def _alone(self, project_id: int) -> Iterator[None]:
        """One process and thread at a time reads, changes and writes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f".{project_id}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def project_choices(settings: Settings) -> Projects:
    """Choices of an installation's projects."""
    return Projects(settings.home / "projects", settings.segmenter)


def _known(kind: type[Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """Of what was kept, the fields of a dataclass."""
    names = {one.name for one in fields(kind)}
    return {name: value for name, value in kept.items() if name in names}


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)
