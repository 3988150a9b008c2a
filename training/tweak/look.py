"""Every standing box of some tasks shown to the engine; what it says is written to the job's folder, task by task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from label_config.interface import Interface
from tator_ml.images.decode import ImageError
from tator_ml.prompts.asking import AnswersAsks
from tator_ml.prompts.standing import Change, StandingBox, rewritten, standing_boxes, with_labels
from tator_ml.prompts.tweaking import Tweaked, Tweaker, kept_because
from tator_sdk.annotations import addresses_of
from tator_sdk.requests import Tweak
from training.job import Job
from training.sweep import Fetches, Line, Patient, Stopped, Sweep

FOUND_FILE = "found.jsonl"


@dataclass(frozen=True)
class How:
    """How boxes are looked at.

    Attributes:
        request: which boxes, and what for.
        interface: of the project.
        classes: names of those that are wanted; all where there is none.
        segmenter: name of the one that is asked; None for the engine's own.
        head: version of the class head; None for the engine's own.
        version: of the model, as predictions carry it.
    """

    request: Tweak
    interface: Interface
    classes: Sequence[str]
    segmenter: str | None
    head: str | None
    version: str


class Looking:
    """Looks at tasks, a bounded number at once; may be begun again, and goes on with those that are left.

    Attributes:
        request: which boxes, and what for.
    """

    def __init__(self, how: How, job: Job, engine: AnswersAsks, fetcher: Fetches, patience_seconds: float) -> None:
        self.request = how.request
        self._how = how
        self._sweep = Sweep(job, job.folder / FOUND_FILE, how.request.in_flight)
        self._tweaker = Tweaker(
            Patient(engine, patience_seconds, self._sweep.stopped),
            how.interface,
            how.segmenter,
            how.head,
            how.request.classify,
        )
        self._fetcher = fetcher

    def look(self, select: Callable[[], tuple[int, Iterator[Any]]]) -> None:
        """Look at all tasks that an earlier attempt of the job has not looked at.

        Args:
            select: asks for the tasks, as the SDK gives them with their annotations, and how many there are.

        Raises:
            TatorError: nobody can answer.
            JobCancelled, JobLost: the job is to stop; what is written stays.
        """
        self._sweep.over(select, self._task, _boxes_in, lambda boxes, s: f"tightening boxes, {boxes / s:.0f} a second")

    def _task(self, task: Any) -> dict[str, Any]:
        """One line of the journal."""
        notes: list[str] = []
        annotations = [one for one in task.annotations or [] if not one.get("was_cancelled") and one.get("result")]
        several = len(annotations) > 1 and not self.request.in_place
        if several:  # one prediction of a version for each task
            annotations = [max(annotations, key=lambda one: (str(one.get("updated_at") or ""), int(one["id"])))]
        addresses = addresses_of(self._how.interface, task.data or {})
        unreadable, looked = 0, []
        for annotation in annotations:
            result = annotation["result"]
            standing = standing_boxes(result, self._how.interface)
            boxes = with_labels(standing.boxes, self._how.classes)
            tweaked, lost = self._boxes(boxes, addresses, int(task.id), notes)
            unreadable += lost
            looked.append(
                {
                    "annotation": int(annotation["id"]),
                    "mark": mark_of(result),
                    "left": dict(standing.left),
                    "boxes": [_entry(one, image) for one, image in tweaked],
                    "offer": self._offer(int(task.id), result, [one for one, _ in tweaked]),
                }
            )
        return {
            "task": int(task.id), "doubled": several, "unreadable": unreadable, "notes": notes, "annotations": looked,
        }  # fmt: skip

    def _boxes(
        self, boxes: Sequence[StandingBox], addresses: Mapping[tuple[str, int], str], task: int, notes: list[str]
    ) -> tuple[list[tuple[Tweaked, str]], int]:
        """What came of an annotation's boxes, each with its picture; and how many could not be looked at."""
        places: dict[tuple[str, int], list[StandingBox]] = {}
        for box in boxes:
            places.setdefault((box.image_name, box.item_index), []).append(box)
        found: list[tuple[Tweaked, str]] = []
        for place, some in places.items():
            made: list[tuple[Tweaked, str]] = []
            try:
                if place not in addresses:
                    raise ImageError(f"it has no picture for '{place[0]}'")
                ref = self._fetcher.fetch(addresses[place], task)
                for part in self._tweaker.tweak(ref, some):
                    if self._sweep.stopped.is_set():
                        raise Stopped
                    made += [(one, ref.image) for one in part]
                if self._tweaker.without_class:
                    notes.append(f"Classes are not offered: {self._tweaker.without_class}")
                found += made
            except ImageError as error:
                notes.append(f"Task {task}: {error}")
        return found, len(boxes) - len(found)

    def _offer(self, task: int, result: Sequence[Any], tweaked: Sequence[Tweaked]) -> dict[str, Any] | None:
        """The annotation as a prediction, with its boxes where they are to stand; None where nothing changes."""
        changed = {one.box.region: one for one in tweaked if one.moved or one.label}
        if not changed or self.request.in_place:
            return None
        scores = {
            region: one.verdict.probability if one.label and one.verdict else one.quality or 0.0
            for region, one in changed.items()
        }
        new = []
        for item in rewritten(result, {region: one.change for region, one in changed.items()}):
            region = str(item.get("id")) if isinstance(item, Mapping) else ""
            new.append({**item, "score": round(scores[region], 4)} if region in scores else item)
        return {
            "task": task,
            "result": new,
            "score": round(min(scores.values()), 4),
            "model_version": self._how.version,
        }


def _boxes_in(line: Line) -> int:
    return sum(len(one["boxes"]) for one in line["annotations"])


def mark_of(result: object) -> str:
    """A digest of an annotation's results, the same for equal ones."""
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()


def changes_of(annotation: Mapping[str, Any]) -> dict[str, Change]:
    """What is to be written of an annotation's regions, from its part of a journal's line."""
    return {
        box["region"]: Change(box["value"], box["offered"])
        for box in annotation["boxes"]
        if box["value"] is not None or box["offered"]
    }


def offer_of(line: Mapping[str, Any]) -> dict[str, Any] | None:
    """The prediction in a journal's line; None where it has none."""
    return next((dict(one["offer"]) for one in line["annotations"] if one["offer"]), None)


def _entry(one: Tweaked, image: str) -> dict[str, Any]:
    return {
        "region": one.box.region,
        "label": ", ".join(one.box.labels) or "(no class)",
        "image": image,
        "iou": round(one.iou, 6),
        "moved": one.moved,
        "kept": list(kept_because(one.reason)) if one.reason else [],
        "before": one.before,
        "after": one.after,
        "value": dict(one.change.value) if one.change.value is not None else None,
        "offered": one.label,
        "quality": one.quality,
    }
