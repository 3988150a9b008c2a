"""What a job gave, in words; its model; the files that it left."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tator_ml.jobs.records import JobRecord
from tator_ml.web.dashboard.words import as_duration, as_figure
from tator_sdk.settings import Settings

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.(json|jsonl|csv|txt|png|zip)")
"""Files in a job's folder that are for people; checkpoints, locks and what is half written are not."""
JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LEARNERS = {"clip": "version", "qwen": "id", "sam3": "id"}
"""Kinds that make a model, with what its version is called in their result."""
HIDDEN = {"version", "id", "activated", "reason", "seconds", "job", "kind", "dry_run", "notes"}
MOST_ROWS = 20


@dataclass(frozen=True)
class Result:
    """A job's result for people.

    Attributes:
        said: in a sentence or two.
        model: version of the model that it made; None without one.
        facts: names with values.
        tables: by caption, rows of a name and a count.
        notes: what the job wants to be known.
    """

    said: str
    model: str | None
    facts: tuple[tuple[str, str], ...]
    tables: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class JobFile:
    """A file that a job left."""

    name: str
    path: Path
    nbytes: int


def result_of(record: JobRecord) -> Result | None:
    """What a job gave; None while it has given nothing."""
    given = record.result
    if not given:
        return None
    facts = [(_named(name), _told(name, one)) for name, one in given.items() if name not in HIDDEN and _plain(one)]
    tables = [(_named(name), rows) for name, one in given.items() if (rows := _rows(one))]
    notes = given.get("notes")
    said = tuple(str(one) for one in notes) if isinstance(notes, list) else ()
    return Result(_sentence(record.kind, given), _model(record), tuple(facts), tuple(tables), said)


def files_of(settings: Settings, record: JobRecord) -> tuple[JobFile, ...]:
    """Files for people in a job's folder, on this machine."""
    if not JOB_ID.fullmatch(record.id):
        return ()
    folder = settings.home / "jobs" / record.id
    try:
        found = sorted(one for one in folder.iterdir() if NAME.fullmatch(one.name))
        return tuple(
            JobFile(one.name, one, one.stat().st_size) for one in found if one.is_file() and not one.is_symlink()
        )
    except OSError:  # it left none, or works on another machine
        return ()


def _model(record: JobRecord) -> str | None:
    version = (record.result or {}).get(LEARNERS.get(record.kind, ""))
    return str(version) if version else None


def _sentence(kind: str, given: Mapping[str, Any]) -> str:
    count = {name: value for name, value in given.items() if isinstance(value, int)}
    dry = " Nothing was changed: it was a dry run." if given.get("dry_run") else ""
    if kind in LEARNERS:
        version, reason = given.get(LEARNERS[kind]), given.get("reason")
        became = "is active now" if given.get("activated") else "was made and is not active"
        return f"{version} {became}{f': {reason}' if reason else ''}."
    if kind == "tweak" and {"boxes", "tasks", "moved"} <= count.keys():
        what = f"{count['moved']} of {count['boxes']} boxes in {count['tasks']} tasks "
        return f"{what}{'would move' if dry else 'move'}.{dry}"
    if kind == "relabel" and {"boxes", "tasks", "disagreements"} <= count.keys():
        among = f"{count['boxes']} boxes in {count['tasks']} tasks"
        return f"The head disagrees about {count['disagreements']} of {among}.{dry}"
    if kind == "prelabel" and {"tasks", "objects"} <= count.keys():
        return f"{count['objects']} objects were found in {count['tasks']} tasks.{dry}"
    return dry.strip()


def _rows(value: object) -> tuple[tuple[str, str], ...]:
    """Rows of a mapping of counts, or of relabel's pairs."""
    if isinstance(value, Mapping) and value and all(_plain(one) for one in value.values()):
        return tuple((str(name), as_figure(one)) for name, one in list(value.items())[:MOST_ROWS])
    if isinstance(value, list) and value and all(isinstance(one, Mapping) and "count" in one for one in value):
        return tuple(
            (" → ".join(str(part) for name, part in one.items() if name != "count"), str(one["count"]))
            for one in value[:MOST_ROWS]
        )
    return ()


def _plain(value: object) -> bool:
    return isinstance(value, str | int | float) and value != ""


def _told(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return as_duration(value) if name == "seconds" else as_figure(value)


def _named(name: str) -> str:
    said = name.replace("_", " ")
    return said[:1].upper() + said[1:]
