"""What was looked at and what came of it, by class: counted from the job's journal, whoever wrote it and when."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_NOTES = 100
SHOWN = 20  # boxes in the report that moved most


@dataclass
class ClassReport:
    """The boxes of one class.

    Attributes:
        boxes: looked at.
        moved: that are to stand elsewhere.
        tight: that stood where the mask puts them.
        kept: by the guard, with
        why: its objections, of which a box may have several.
        iou: sum over all boxes of the IoU between before and after, which is 1 for those that stay.
        least: the smallest such IoU.
        offered: other classes that the head offers, by name.
    """

    boxes: int = 0
    moved: int = 0
    tight: int = 0
    kept: int = 0
    why: Counter[str] = field(default_factory=Counter)
    iou: float = 0.0
    least: float = 1.0
    offered: Counter[str] = field(default_factory=Counter)

    def add(self, box: Mapping[str, Any]) -> None:
        """Count a box of the journal."""
        self.boxes += 1
        self.moved += box["moved"]
        self.kept += bool(box["kept"])
        self.tight += not (box["moved"] or box["kept"])
        self.why.update(box["kept"])
        self.iou += box["iou"]
        self.least = min(self.least, box["iou"])
        if box["offered"]:
            self.offered[box["offered"]] += 1

    def as_json(self) -> dict[str, Any]:
        """With the mean IoU over all boxes, and over those that moved."""
        moved = (self.iou - (self.boxes - self.moved)) / self.moved if self.moved else None
        return {
            "boxes": self.boxes,
            "moved": self.moved,
            "tight": self.tight,
            "kept": self.kept,
            "why": dict(self.why.most_common()),
            "iou": round(self.iou / self.boxes, 4) if self.boxes else None,
            "iou_moved": None if moved is None else round(moved, 4),
            "iou_least": round(self.least, 4),
            "offered": dict(self.offered.most_common()),
        }


@dataclass
class Report:
    """All that a job looked at.

    Attributes:
        tasks: looked at, with
        annotations: of them that have boxes.
        doubled: tasks of whose several annotations only the newest was taken.
        left: regions that were left as they are, by reason.
        unreadable: boxes whose picture could not be had.
        classes: by name, and
        total: of all of them together.
        moved_most: boxes that moved most, first.
        notes: what went wrong, in sentences.
    """

    tasks: int = 0
    annotations: int = 0
    doubled: int = 0
    left: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    classes: dict[str, ClassReport] = field(default_factory=dict)
    total: ClassReport = field(default_factory=ClassReport)
    moved_most: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, lines: Iterable[Mapping[str, Any]], most: int = SHOWN) -> Report:
        """Count a journal's lines.

        Args:
            lines: one for each task.
            most: how many of the boxes that moved most are listed.
        """
        made = cls()
        moved = heapq.nsmallest(
            max(most, SHOWN), (box for line in lines for box in made._add(line) if box["moved"]), key=_order
        )
        made.moved_most = moved
        return made

    def note(self, sentence: str) -> None:
        """Keep a sentence, up to as many as anybody reads."""
        if len(self.notes) < MOST_NOTES and sentence not in self.notes:
            self.notes.append(sentence)

    def as_json(self) -> dict[str, Any]:
        """As it is stored and shown."""
        names = sorted(self.classes, key=lambda name: (-self.classes[name].boxes, name))
        shown = ("task", "annotation", "region", "label", "iou", "offered", "image", "before", "after")
        return {
            "tasks": self.tasks,
            "annotations": self.annotations,
            "several_annotations": self.doubled,
            "left": dict(self.left),
            "unreadable": self.unreadable,
            **self.total.as_json(),
            "classes": {name: self.classes[name].as_json() for name in names},
            "moved_most": [{key: box[key] for key in shown} for box in self.moved_most[:SHOWN]],
            "notes": self.notes,
        }

    def _add(self, line: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        self.tasks += 1
        self.unreadable += line["unreadable"]
        self.doubled += line["doubled"]
        for sentence in line["notes"]:
            self.note(sentence)
        for one in line["annotations"]:
            self.annotations += bool(one["boxes"])
            self.left.update(one["left"])
            for box in one["boxes"]:
                self.total.add(box)
                self.classes.setdefault(box["label"], ClassReport()).add(box)
                yield {**box, "task": line["task"], "annotation": one["annotation"]}


def _order(box: Mapping[str, Any]) -> tuple[Any, ...]:
    return box["iou"], box["task"], box["annotation"], box["region"]
