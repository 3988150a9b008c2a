"""The boxes that stand on a task: all its annotations together, each object once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from label_config.interface import Interface
from tator_sdk.annotations import LabelledBox, addresses_of, labelled_boxes
from tator_sdk.geometry import iou_xyxy

SAME_OBJECT = 0.7  # IoU from which two annotators' boxes of one class are the same object


@dataclass(frozen=True)
class Marked:
    """A task with everything that its annotations say, each object once.

    Attributes:
        task: its number.
        boxes: labelled boxes; region ids are unique within the task.
        results: their regions as annotated, under the same ids.
        origin: annotation, and region id there, by region id here.
        addresses: of its pictures, by image tag and page.
    """

    task: int
    boxes: list[LabelledBox]
    results: list[dict[str, Any]]
    origin: dict[str, tuple[int, str]]
    addresses: dict[tuple[str, int], str]

    def address_of(self, box: LabelledBox) -> str:
        """The address of the picture that a box stands on; empty where the task has none."""
        return self.addresses.get((box.image_name, box.item_index), "")


def marked(task: Any, interface: Interface) -> Marked:
    """All annotations of a task together.

    What several annotators agree on (one class, boxes that overlap) counts once. Copied annotations share region
    ids, which one prediction must not: later ones get their annotation's number.
    """
    found = Marked(int(task.id), [], [], {}, addresses_of(interface, task.data or {}))
    for annotation in task.annotations or []:
        if annotation.get("was_cancelled"):  # skipped: nothing was said about its objects
            continue
        number, before, own = int(annotation["id"]), list(found.boxes), {}
        items = [item for item in annotation.get("result") or [] if isinstance(item, Mapping)]
        for box in labelled_boxes(items, interface):
            if not any(_same_object(box, known) for known in before):
                own[box.region] = f"{box.region}-{number}" if box.region in found.origin else box.region
                found.boxes.append(replace(box, region=own[box.region]))
        found.results.extend({**item, "id": own[str(item.get("id"))]} for item in items if str(item.get("id")) in own)
        found.origin.update({here: (number, there) for there, here in own.items()})
    return found


def _same_object(one: LabelledBox, other: LabelledBox) -> bool:
    alike = (one.label, one.image_name, one.item_index) == (other.label, other.image_name, other.item_index)
    return alike and iou_xyxy(one.xyxy, other.xyxy) >= SAME_OBJECT
