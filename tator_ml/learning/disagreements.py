"""Where a head disagrees with the label that a person gave, surely enough to say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from label_config.interface import Interface
from tator_ml.engine.head import Head
from tator_sdk.annotations import LabelledBox
from tator_sdk.regions import Region

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Disagreement:
    """A box whose label is doubtful.

    Attributes:
        box: as labelled.
        label: what the head says, as the configuration names it.
        probability: of that class, 0..1; ``given`` that of the person's label.
    """

    box: LabelledBox
    label: str
    probability: float
    given: float


def disagreements(
    head: Head,
    boxes: Sequence[LabelledBox],
    embeddings: NDArray[np.float32],
    results: Sequence[object],
    interface: Interface,
    least_probability: float = 0.0,
) -> list[Disagreement]:
    """Boxes on which the head answers with another class, most certain first.

    Args:
        head: whose threshold, margin and familiarity decide whether it answers at all.
        boxes: of one annotation, with their ``embeddings`` (N, D).
        embeddings: one row for each box.
        results: the annotation's regions, which name the tag that a class belongs to.
        interface: maps the head's classes to labels; a class that the tag does not have is no disagreement.
        least_probability: of the head's class.
    """
    if not boxes:
        return []
    items = {str(item.get("id")): item for item in results if isinstance(item, Mapping)}
    tags = {control.name: control for control in interface.controls}
    probabilities = head.probabilities(embeddings)
    found = []
    for box, verdict, row in zip(boxes, head.verdicts(embeddings), probabilities, strict=True):
        control = tags.get(str(items.get(box.region, {}).get("from_name")))
        if verdict.label is None or control is None or box.label not in head.classes:
            continue
        label = interface.find_label(control, verdict.label)
        if label is not None and label != box.label and verdict.probability >= least_probability:
            given = float(row[head.classes.index(box.label)])
            found.append(Disagreement(box, label, verdict.probability, given))
    return sorted(found, key=lambda one: one.given)


def prediction(task: int, found: Sequence[Disagreement], results: Sequence[object], version: str) -> dict[str, Any]:
    """What is offered on a task: the doubtful regions with the head's labels.

    Its score is the least probability of a label that a person gave, so that Label Studio's order by prediction
    score, and its uncertainty sampling, put the most doubtful tasks first.
    """
    items = [dict(item) for item in results if isinstance(item, Mapping)]
    regions: list[Region] = []
    for one in found:
        note = f"{one.box.label} {one.given:.2f} → {one.label} {one.probability:.2f}"
        for item in items:
            if str(item.get("id")) == one.box.region and isinstance(item.get("value"), Mapping):
                regions.append(_relabelled(item, one, note))
    return {
        "task": task,
        "result": regions,
        "score": round(min(one.given for one in found), 4),
        "model_version": version,
    }


def _relabelled(item: Json, one: Disagreement, note: str) -> Region:
    value = dict(item["value"])
    for key in (str(item.get("type")), "labels"):
        if isinstance(value.get(key), list):
            value[key] = [one.label]
    kept = {key: item[key] for key in _KEPT if key in item}
    return {**kept, "value": value, "score": round(one.probability, 4), "meta": {"text": [note]}}


_KEPT = (
    "id", "from_name", "to_name", "type", "original_width", "original_height", "image_rotation", "item_index",
)  # fmt: skip
