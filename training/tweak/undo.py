"""What a job did to annotations, taken back: boxes put where they were.

Safe to repeat and to break off: every annotation is compared with what the job made of it first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tator_sdk.rewriting import Annotations
from tator_sdk.settings import Settings
from training.journal import line_at
from training.pushed import Watch
from training.tweak.apply import CHANGES_FILE, DRAFTED, GONE, begun_of, record_of

CHANGED = "a person changed it since"


@dataclass
class Undone:
    """What an undo came to.

    Attributes:
        restored: annotations whose boxes stand where they stood.
        there: annotations that stood so already.
        skipped: those that were left, each with its task and the reason.
    """

    restored: int = 0
    there: int = 0
    skipped: list[dict[str, Any]] = field(default_factory=list)


def restore(settings: Settings, folder: Path, watch: Watch = lambda done, total: None) -> Undone:
    """Put the boxes of every annotation that a job changed back, except where people changed it since.

    Args:
        settings: of this installation.
        folder: of the job, with its record.
        watch: is told how far it is; may raise to stop.

    Raises:
        StudioError: Label Studio does not answer; what is restored stays so.
    """
    record, undone = folder / CHANGES_FILE, Undone()
    begun, _ = record_of(record)
    if not begun:
        return undone
    with Annotations(settings) as annotations:
        for count, (number, offset) in enumerate(begun.items()):
            watch(count, len(begun))
            change = begun_of(line_at(record, offset))
            now, why = annotations.read(number), None
            if now is None:
                why = GONE
            elif now == change.before:
                undone.there += 1
                continue
            elif now != change.after:
                why = CHANGED
            elif number in annotations.drafted(change.task):
                why = DRAFTED
            if why:
                undone.skipped.append({"annotation": number, "task": change.task, "why": why})
                continue
            annotations.write(number, change.before)
            undone.restored += 1
    watch(len(begun), len(begun))
    return undone
