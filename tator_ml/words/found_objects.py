"""What a model says it sees → objects with the configuration's labels, each once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL.Image import DecompressionBombError

from label_config.interface import Control, Interface
from tator_ml.engine.detections import Detection
from tator_ml.projects import ProjectChoices
from tator_ml.prompts.assists import AssistError, choose_output
from tator_sdk.annotations import labels_of, region_box, size_of
from tator_sdk.geometry import Xyxy, iou_xyxy
from tator_sdk.regions import RegionError

Json = Mapping[str, Any]

SAME_OF_A_CLASS = 0.7
"""IoU from which two boxes of one label are the same object."""

SAME_PLACE = 0.9
"""… and of different labels: one object that was named twice."""


@dataclass(frozen=True)
class Placed:
    """An object on the picture: its labels, and the upright box around it in pixels."""

    labels: tuple[str, ...]
    xyxy: Xyxy

    def is_same(self, other: Placed) -> bool:
        """Whether both are one object."""
        alike = self.labels == other.labels
        return iou_xyxy(self.xyxy, other.xyxy) >= (SAME_OF_A_CLASS if alike else SAME_PLACE)


@dataclass(frozen=True)
class Named:
    """A detection with the label that it takes, empty where the tag has no labels."""

    detection: Detection
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Naming:
    """Detections by whether their names are labels.

    Attributes:
        named: those that have a label, in the model's order.
        unmatched: names of the others, which are never guessed at, with how often each was given.
    """

    named: tuple[Named, ...] = ()
    unmatched: Counter[str] = field(default_factory=Counter)


def named(
    detections: Iterable[Detection], interface: Interface, output: Control, items: Sequence[str] | None
) -> Naming:
    """Find the label of each detection.

    Args:
        detections: of one picture.
        interface: knows the labels.
        output: the tag that is to hold them.
        items: what was asked for; an object without a name is the only one of them.
    """
    found: list[Named] = []
    unmatched: Counter[str] = Counter()
    for one in detections:
        if not output.labels:
            found.append(Named(one, ()))
            continue
        name = one.label or (items[0] if items and len(items) == 1 else "")
        label = interface.find_label(output, name) if name else None
        if label is None:
            unmatched[name or "(no name)"] += 1
        else:
            found.append(Named(one, (label,)))
    return Naming(tuple(found), unmatched)


def output_of_words(interface: Interface, prompt: Control, image_name: str, wanted: str | None) -> Control:
    """The tag that takes what words find.

    Args:
        interface: of the project.
        prompt: the prompt field.
        image_name: name of the image tag.
        wanted: ``box``, ``polygon`` or ``mask``, where the field itself says nothing.

    Raises:
        AssistError: no tag can take it; the sentence says what to add.
    """
    output = choose_output(interface, prompt, image_name, wanted)
    if output.labels_key:
        raise AssistError(
            f"The labels of '{output.name}' come with each task, so words cannot be matched with them; write them into "
            "the labelling configuration."
        )
    return output


def wants_classes(prompt: Control, choices: ProjectChoices) -> bool:
    """Whether the class head is asked about what words find: the prompt field decides, else the project, else yes."""
    chosen = prompt.assists
    if chosen is None and choices.assists is not None:
        chosen = frozenset(choices.assists)
    return chosen is None or "classify" in chosen


def vocabulary(output: Control) -> tuple[str, ...]:
    """What a model is asked for when all classes are meant: of each its first ``predicted_values``, else itself."""
    classes = set(output.classes)
    names = (next(iter(label.predicted_values), label.value) for label in output.labels if label.value in classes)
    return tuple(dict.fromkeys(names))


def placed_regions(result: Iterable[Any], image_name: str) -> list[Placed]:
    """The objects among results on an image's first page, whatever tool drew them; unreadable ones are left out."""
    items = [item for item in result if isinstance(item, Mapping)]
    separate = {str(item.get("id")): labels_of(item) for item in items if item.get("type") == "labels"}
    placed = []
    for item in items:
        if item.get("to_name") != image_name or item.get("item_index") not in (None, 0):
            continue
        try:
            box = region_box(item, size_of(item))
        except (RegionError, OverflowError, DecompressionBombError):  # somebody else's must not spoil this answer
            continue
        if box is not None:
            placed.append(Placed(labels_of(item) or separate.get(str(item.get("id")), ()), box))
    return placed
