"""Where a head disagrees with the label that a person gave, surely enough to say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from label_config.interface import Interface
from tator_ml.engine.head import Head
from tator_sdk.annotations import LabelledBox, labels_of
from tator_sdk.regions import Region

Json = Mapping[str, Any]

SURE, DOUBTED = 0.7, 0.1  # probability of the head's class at least, of the person's at most (tator_sdk/requests.py)


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
    least_probability: float = SURE,
    most_given: float = DOUBTED,
) -> list[Disagreement]:
    """Boxes whose label the head finds improbable and another class probable, most doubtful first.

    Calibrated probabilities decide, not the head's own thresholds: those were chosen on labels that may hold the very
    mistakes that are looked for, which makes them too strict.

    Args:
        head: asked about each box.
        boxes: of one annotation, with their ``embeddings`` (N, D).
        embeddings: one row for each box.
        results: the annotation's regions, which name the tag that a class belongs to.
        interface: maps the head's classes to labels; a class that the tag does not have is no disagreement.
        least_probability: of the head's class; ``most_given`` of the person's label at most.
        most_given: see there.
    """
    if not boxes:
        return []
    items = {  # several results share a region's id: its tool, its label, and what else was said about it
        (str(item.get("id")), label): item
        for item in results if isinstance(item, Mapping)
        for label in labels_of(item)
    }  # fmt: skip
    tags = {control.name: control for control in interface.controls}
    probabilities = head.probabilities(embeddings)
    found = []
    for box, row in zip(boxes, probabilities, strict=True):
        control = tags.get(str(items.get((box.region, box.label), {}).get("from_name")))
        said = head.classes[int(row.argmax())]
        if control is None or box.label not in head.classes or said == head.background:
            continue
        label = interface.find_label(control, said)
        probability, given = float(row.max()), float(row[head.classes.index(box.label)])
        if label not in (None, box.label) and probability >= least_probability and given <= most_given:
            found.append(Disagreement(box, str(label), probability, given))
    return sorted(found, key=lambda one: one.given)


def prediction(task: int, found: Sequence[Disagreement], results: Sequence[object], version: str) -> dict[str, Any]:
    """What is offered on a task: the doubtful regions with the head's labels.

    Its score is the least probability of a label that a person gave: the lower, the more doubtful. Label Studio's
    order by prediction score and its uncertainty sampling put the lowest first, of predictions whose version is
    the one chosen in the project's settings.
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
        if value.get(key) == [one.box.label]:
            value[key] = [one.label]
    kept = {key: item[key] for key in _KEPT if key in item}
    return {**kept, "value": value, "score": round(one.probability, 4), "meta": {"text": [note]}}


_KEPT = (
    "id", "from_name", "to_name", "type", "original_width", "original_height", "image_rotation", "item_index",
)  # fmt: skip
