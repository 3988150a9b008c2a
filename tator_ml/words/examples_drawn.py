"""Which boxes of a task are examples of what: a request holds those of one label only, so the others are remembered."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tator_sdk.geometry import Xyxy, iou_xyxy

Json = Mapping[str, Any]
Key = tuple[object, object, str]  # project, task, tag
REMEMBERED = 500  # tags of tasks
SECONDS = 1800.0  # since the last box: later, somebody else may have opened the task
SAME = 0.7  # IoU from which an object of a later answer is that of an earlier one


@dataclass
class _Examples:
    at: float
    label: str = ""
    drawn: dict[str, list[Json]] = field(default_factory=dict)  # positive ones by label
    negative_of: dict[str, str] = field(default_factory=dict)  # id → label
    negatives: dict[str, Xyxy] = field(default_factory=dict)
    answered: dict[str, Xyxy] = field(default_factory=dict)  # id → box, of the last label


@dataclass(frozen=True)
class Examples:
    """What is to be found now.

    Attributes:
        label: of what the positive ones show.
        drawn: the positive ones as they came.
        negatives: boxes around what is not meant, pixels.
    """

    label: str
    drawn: tuple[Json, ...]
    negatives: tuple[Xyxy, ...]


class DrawnExamples:
    """Remembers examples and the objects that they were answered with; bounded, and for some time only."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._known: OrderedDict[Key, _Examples] = OrderedDict()
        self._lock = threading.Lock()

    def positive(self, key: Key, label: str, drawn: Sequence[Json]) -> Examples:
        """All examples for a label whose waiting boxes have come.

        Args:
            key: project, task and tag.
            label: that the boxes carry.
            drawn: all that wait for an answer; those that came before and do not wait any more are done.
        """
        with self._lock:
            about = self._of(key)
            if label != about.label:
                about.answered = {}
            about.label, about.drawn[label] = label, list(drawn)
            return self._examples(about)

    def negative(self, key: Key, boxes: Mapping[str, Xyxy]) -> Examples | None:
        """The same where boxes around what is not meant have come: they belong to the label that was drawn last.

        Args:
            key: project, task and tag.
            boxes: all of the request by id, pixels.

        Returns:
            None where no positive example is known.
        """
        with self._lock:
            about = self._of(key)
            if not about.drawn.get(about.label):
                return None
            for name in about.negatives.keys() - boxes.keys():  # taken away meanwhile
                about.negatives.pop(name)
                about.negative_of.pop(name)
            about.negatives.update(boxes)
            for name in boxes:
                about.negative_of.setdefault(name, about.label)
            return self._examples(about)

    def answer(self, key: Key, regions: Mapping[str, Xyxy]) -> None:
        """Remember new objects by the ids they were answered with."""
        with self._lock:
            about = self._of(key)
            about.answered = {**about.answered, **regions}

    def id_of(self, key: Key, xyxy: Xyxy) -> str | None:
        """The id under which an object of the same search was answered before.

        A draft is saved only every five seconds: an object that was accepted since is not repeated, but replaced.
        """
        with self._lock:
            known = self._of(key).answered
            return next((name for name, box in known.items() if iou_xyxy(box, xyxy) >= SAME), None)

    def forget_negatives(self, project: object, task: object) -> None:
        """A box was taken away, or the annotation submitted: which ones are left is not told."""
        with self._lock:
            for key, about in self._known.items():
                if key[:2] == (project, task):
                    about.negatives.clear()
                    about.negative_of.clear()

    def _of(self, key: Key) -> _Examples:
        now = time.monotonic()
        about = self._known.get(key)
        if about is None or now - about.at > self._seconds:
            about = self._known[key] = _Examples(now)
        about.at = now
        self._known.move_to_end(key)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return about

    def _examples(self, about: _Examples) -> Examples:
        label = about.label
        negatives = tuple(box for name, box in about.negatives.items() if about.negative_of[name] == label)
        return Examples(label, tuple(about.drawn[label]), negatives)
