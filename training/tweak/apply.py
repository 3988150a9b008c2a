"""Tightened boxes written into annotations, each annotation once, whatever ends the job in between.

What an annotation was and what it becomes is on the disk before Label Studio is told. A later attempt reads there
what was begun, compares it with what stands, and goes on; :mod:`training.tweak.undo` goes back by the same record.
An annotation is left as it is where somebody changed it since it was looked at, or has unsaved changes on it; see
:mod:`tator_sdk.rewriting`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tator_ml.prompts.standing import rewritten
from tator_sdk.patience import WAITS_SECONDS
from tator_sdk.rewriting import Annotations
from tator_sdk.studio import StudioError
from training.job import Job
from training.journal import Journal, line_at, lines_of
from training.tweak.look import FOUND_FILE, changes_of, mark_of

CHANGES_FILE = "changes.jsonl"
CHANGED = "a person changed it since it was looked at"
DRAFTED = "somebody has unsaved changes on it"
GONE = "it was deleted"


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
