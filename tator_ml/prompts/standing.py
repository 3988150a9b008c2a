"""The rectangles that stand in an annotation, as far as they may be tightened, and what becomes of its results.

``/tweak`` in the editor and ``tator tweak`` share it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from label_config.errors import UnknownTag
from label_config.interface import Control, Interface
from label_config.names import STRENGTHS, same_name
from tator_ml.prompts.assists import BOX_TYPES
from tator_sdk.annotations import labels_of
from tator_sdk.errors import TatorError
from tator_sdk.geometry import Xyxy
from tator_sdk.regions import RegionError, box_value, read_box

Json = Mapping[str, Any]
GEOMETRY = ("x", "y", "width", "height")


class UnknownClass(TatorError):
    """A class that the labelling configuration does not have; the message names those it has."""


@dataclass(frozen=True)
class StandingBox:
    """An upright rectangle of an annotation.

    Attributes:
        region: the region's id.
        control: the tag it was drawn with.
        image_name: name of the image tag; ``item_index`` the page of a list of images.
        labels: what it carries, whether in its own result or in that of a ``<Labels>`` beside it.
        value: ``x``, ``y``, ``width``, ``height`` in percent of the picture, as they are written.
    """

    region: str
    control: Control
    image_name: str
    item_index: int
    labels: tuple[str, ...]
    value: Json = field(hash=False)

    def xyxy(self, size_wh: tuple[int, int]) -> Xyxy:
        """Its corners in pixels of a picture of that size."""
        return read_box(self.value, size_wh).enclosing_xyxy()


@dataclass(frozen=True)
class Standing:
    """What stands in one annotation.

    Attributes:
        boxes: that may be tightened, each region once.
        left: how many regions were left as they are, by reason: ``rotated``, ``locked``, ``unreadable``, or
            ``other shapes``.
    """

    boxes: tuple[StandingBox, ...]
    left: Mapping[str, int] = field(hash=False)


def standing_boxes(result: Iterable[object], interface: Interface) -> Standing:
    """The upright rectangles among an annotation's results.

    Rotated rectangles are left out: their angle is a person's. So is whatever the editor shows as locked, and a
    broken region, which must not spoil the others.
    """
    items = [item for item in result if isinstance(item, Mapping) and "id" in item]
    separate = {str(item["id"]): labels_of(item) for item in items if item.get("type") == "labels"}
    boxes: dict[str, StandingBox] = {}
    left: dict[str, set[str]] = {}
    for item in items:
        region = str(item["id"])
        if str(item.get("type")).startswith(("polygon", "brush", "bitmask", "ellipse")):
            left.setdefault("other shapes", set()).add(region)
        if item.get("type") not in BOX_TYPES or region in boxes:
            continue
        reason, value = None, item.get("value")
        try:
            if not isinstance(value, Mapping):
                raise RegionError("The region has no value.")
            if read_box(value, (100, 100)).rotation % 360:
                reason = "rotated"
            elif item.get("readonly") or item.get("locked"):
                reason = "locked"
            control = interface.control(str(item.get("from_name")))
        except (RegionError, UnknownTag):
            reason = "unreadable"
        if reason:
            left.setdefault(reason, set()).add(region)
            continue
        page = item.get("item_index")
        labels = labels_of(item) or separate.get(region, ())
        boxes[region] = StandingBox(
            region, control, str(item.get("to_name")), page if isinstance(page, int) else 0, labels, value or {}
        )
    return Standing(tuple(boxes.values()), {reason: len(regions) for reason, regions in left.items()})


def class_named(word: str, known: Sequence[str]) -> str:
    """The class that is meant by a word, with case, underscores and simple plurals folded where need be.

    Raises:
        UnknownClass: there is none.
    """
    for strength in STRENGTHS:
        for name in known:
            if same_name(name, word, strength):
                return name
    there = f"it has {', '.join(known)}" if known else "it has none"
    raise UnknownClass(f"The labelling configuration has no class '{word}'; {there}.")


def with_labels(boxes: Iterable[StandingBox], classes: Sequence[str]) -> tuple[StandingBox, ...]:
    """Those that carry one of the classes; all where none is named."""
    return tuple(box for box in boxes if not classes or set(classes) & set(box.labels))


@dataclass(frozen=True)
class Change:
    """What is written of one region.

    Attributes:
        value: ``x``, ``y``, ``width``, ``height`` in percent; None where it stays in its place.
        label: in place of its own; None where that stays.
    """

    value: Mapping[str, float] | None = None
    label: str | None = None

    @classmethod
    def moved(cls, xyxy: Xyxy, size_wh: tuple[int, int], label: str | None = None) -> Change:
        """A region moved to a box in pixels."""
        value = box_value(xyxy, size_wh)
        return cls({key: value[key] for key in GEOMETRY}, label)


def rewritten(result: Iterable[Any], changes: Mapping[str, Change]) -> list[Any]:
    """Results with some regions changed; nothing else of them, and no other result, is touched.

    A region may have several results of one id (a plain ``<Rectangle>`` and its label, a rating of its own): all of
    them carry its place.
    """
    return [_changed(item, changes) for item in result]


def _changed(item: Any, changes: Mapping[str, Change]) -> Any:
    change = changes.get(str(item.get("id"))) if isinstance(item, Mapping) else None
    value = item.get("value") if change else None
    if change is None or not isinstance(value, Mapping):
        return item
    new = dict(value)
    if change.value is not None and all(key in value for key in GEOMETRY):
        new.update(change.value)
    kind = str(item.get("type"))
    if change.label is not None and kind in ("rectanglelabels", "labels"):
        key = kind if kind in value or "labels" not in value else "labels"
        new[key] = [change.label]
    return {**item, "value": new}
