"""Tightened boxes written into annotations, each annotation once, whatever ends the job in between.

What an annotation was and what it becomes is on the disk before Label Studio is told. A later attempt reads there
what was begun, compares it with what stands, and goes on; :mod:`training.tweak.undo` goes back by the same record.
An annotation is left as it is where somebody changed it since it was looked at, or has unsaved changes on it: Label
Studio (1.23.2) deletes every draft of an annotation that is updated, whoever's it is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from tator_ml.standing import rewritten
from tator_sdk.auth import LabelStudioAuth
from tator_sdk.patience import WAITS_SECONDS
from tator_sdk.settings import Settings
from tator_sdk.studio import StudioError, open_studio, sentences
from training.job import Job
from training.journal import Journal, line_at, lines_of
from training.tweak.look import FOUND_FILE, changes_of, mark_of

CHANGES_FILE = "changes.jsonl"
CHANGED = "a person changed it since it was looked at"
DRAFTED = "somebody has unsaved changes on it"
GONE = "it was deleted"


class Annotations:
    """Annotations of a Label Studio, read and written one by one."""

    def __init__(self, settings: Settings) -> None:
        self._studio: Any = open_studio(settings)
        self._url = settings.label_studio_url
        key = settings.label_studio_api_key
        self._client = httpx.Client(
            auth=LabelStudioAuth(self._url, key.get_secret_value()) if key else None, timeout=60
        )

    def __enter__(self) -> Annotations:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def read(self, number: int) -> list[Any] | None:
        """Its results as they stand now; None where it is gone.

        Raises:
            StudioError: Label Studio does not answer.
        """
        from label_studio_sdk.core.api_error import ApiError

        with sentences(self._url):
            try:
                return list(self._studio.annotations.get(id=number).result or [])
            except ApiError as error:
                if error.status_code == 404:
                    return None
                raise

    def drafted(self, task: int) -> set[int]:
        """Those of a task's annotations that somebody, whoever it is, has unsaved changes on.

        The Data Manager's tasks tell the drafts of the token's owner alone.

        Raises:
            StudioError: Label Studio does not answer.
        """
        with sentences(self._url):
            answer = self._client.get(f"{self._url}/api/tasks/{task}/drafts")
            answer.raise_for_status()
            return {int(one["annotation"]) for one in answer.json() if one.get("annotation")}

    def write(self, number: int, result: list[Any]) -> None:
        """Replace its results and nothing else: who completed it and how long that took stays.

        Raises:
            StudioError: Label Studio refuses, or does not answer.
        """
        with sentences(self._url):
            self._studio.annotations.update(id=number, result=result)


@dataclass
class Written:
    """What became of annotations.

    Attributes:
        changed: annotations that were written now, or by an earlier attempt.
        there: of them, those of an earlier attempt.
        skipped: those that were left as they are, each with its task and the reason.
    """

    changed: int = 0
    there: int = 0
    skipped: list[dict[str, Any]] = field(default_factory=list)

    def skip(self, number: int, task: int, why: str) -> None:
        """Leave one as it is."""
        self.skipped.append({"annotation": number, "task": task, "why": why})


@dataclass(frozen=True)
class Begun:
    """An annotation whose change was begun: what it was, and what it becomes."""

    task: int
    before: list[Any]
    after: list[Any]


def record_of(path: Path) -> tuple[dict[int, int], set[int]]:
    """Where in the record each annotation's change begins, and which of them are known to be written."""
    begun: dict[int, int] = {}
    done: set[int] = set()
    for offset, line in lines_of(path):
        if "after" in line:
            begun[int(line["annotation"])] = offset
        elif line.get("done"):
            done.add(int(line["annotation"]))
    return begun, done


def begun_of(line: dict[str, Any]) -> Begun:
    """The change in a line of the record."""
    return Begun(int(line["task"]), line["before"], line["after"])


def apply(job: Job, annotations: Annotations) -> Written:
    """Write what was found into the annotations.

    Args:
        job: asked before each change whether to go on; its folder has what was found.
        annotations: of the project.

    Raises:
        StudioError: Label Studio does not answer; what is written stays, and is gone back by the record.
        JobCancelled, JobLost: likewise.
    """
    record = job.folder / CHANGES_FILE
    begun, done = record_of(record)
    written, wanted = Written(), list(_wanted(job.folder / FOUND_FILE))
    started = time.monotonic()
    with Journal(record) as journal:
        for count, (task, number, offset) in enumerate(wanted):
            rate = count / max(time.monotonic() - started, 1e-3)
            job.progress(count, len(wanted), f"changing annotations, {rate:.1f} a second")
            if number in done:
                written.changed += 1
                written.there += 1
                continue
            part = _part(line_at(job.folder / FOUND_FILE, offset), number)
            for seconds in (*WAITS_SECONDS, None):
                job.check()
                known = begun_of(line_at(record, begun[number])) if number in begun else None
                try:
                    _write(annotations, journal, written, task, part, known)
                    break
                except StudioError as error:
                    if seconds is None or not error.passing:
                        raise
                    job.log(f"annotation {number} is tried again in {seconds:g} s: {error}")
                    time.sleep(seconds)
                    begun, _ = record_of(record)  # the change may be recorded by now, and even be made
    job.progress(len(wanted), len(wanted), "changing annotations")
    return written


def _write(
    annotations: Annotations, journal: Journal, written: Written, task: int, part: dict[str, Any], known: Begun | None
) -> None:
    number = int(part["annotation"])
    now = annotations.read(number)
    if now is None:
        return written.skip(number, task, GONE)
    if known is not None and now == known.after:  # what began it died between the change and its note
        journal.write({"annotation": number, "done": True})
        written.changed += 1
        written.there += 1
        return None
    if (now != known.before) if known is not None else (mark_of(now) != part["mark"]):
        return written.skip(number, task, CHANGED)
    if number in annotations.drafted(task):
        return written.skip(number, task, DRAFTED)
    after = rewritten(now, changes_of(part))
    if known is None:
        journal.write({"annotation": number, "task": task, "before": now, "after": after}, safely=True)
    annotations.write(number, after)
    journal.write({"annotation": number, "done": True})
    written.changed += 1
    return None


def _wanted(path: Path) -> Iterator[tuple[int, int, int]]:
    """Annotations with something to change: task, annotation, and the place of its line."""
    for offset, line in lines_of(path):
        for part in line["annotations"]:
            if changes_of(part):
                yield int(line["task"]), int(part["annotation"]), offset


def _part(line: dict[str, Any], number: int) -> dict[str, Any]:
    return next(dict(part) for part in line["annotations"] if int(part["annotation"]) == number)
