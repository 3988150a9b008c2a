"""Shapes of a data set → regions of the tags that a labelling configuration has for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from label_config.interface import Control, Gives, ImageTag, Interface
from tator_sdk.formats.dataset import LabelledShape, Outline, Shape, enclosing_xyxy
from tator_sdk.geometry import mask_of_outline
from tator_sdk.regions import Region, geometry_value, labelled_regions

# In which kind of tag a shape goes, the best first.
FOR_BOXES: tuple[Gives, ...] = ("box", "polygon", "mask", "ellipse")
FOR_POLYGONS: tuple[Gives, ...] = ("polygon", "mask", "box", "ellipse")
FOR_PARTS: tuple[Gives, ...] = ("mask", "polygon", "box", "ellipse")
DECIMALS = 5  # of a percentage: a thousandth of a pixel in a picture of 10,000


@dataclass
class Written:
    """What became of the shapes so far.

    Attributes:
        regions: how many there are of each class.
        missing: shapes left out, by the class that no tag has.
        changed: shapes that are not what they were, by what happened to them.
    """

    regions: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)


class ShapeWriter:
    """Writes regions for one image tag of a configuration.

    Attributes:
        written: counts over all that was written.
    """

    def __init__(self, interface: Interface, image: ImageTag) -> None:
        self.written = Written()
        self._interface = interface
        self._image = image
        self._controls: Sequence[Control] = interface.outputs_for(image)
        self._known: dict[tuple[str, tuple[Gives, ...]], tuple[Control, str] | None] = {}

    def regions(self, shapes: Iterable[LabelledShape], size_wh: tuple[int, int], prefix: str) -> list[Region]:
        """The regions of one picture.

        Args:
            shapes: in pixels.
            size_wh: of the picture.
            prefix: of the regions' ids.
        """
        made: list[Region] = []
        for one in shapes:
            place = self._place(one.label, _wanted(one.shape))
            if place is None:
                self.written.missing[one.label] += 1
                continue
            control, label = place
            self.written.regions[label] += 1
            for value in self._values(control, one.shape, size_wh):
                number = f"{prefix}{len(made)}"
                made += labelled_regions(control, self._image.name, number, value, [label], size_wh)
        return made

    def mend(self, missing: Iterable[str]) -> str:
        """What to add to the configuration, as XML."""
        tag = self._controls[0]
        name = tag.labels_from or tag.name
        labels = "".join(f'<Label value="{_attribute(one)}"/>' for one in missing)
        return f'inside the tag named "{name}": {labels}'

    def _place(self, label: str, wanted: tuple[Gives, ...]) -> tuple[Control, str] | None:
        key = label, wanted
        if key not in self._known:
            found = None
            for kind in wanted:
                for control in self._controls:
                    name = self._interface.find_label(control, label) if control.gives == kind else None
                    if name is not None and found is None:
                        found = control, name
            self._known[key] = found
        return self._known[key]

    def _values(self, control: Control, shape: Shape, size_wh: tuple[int, int]) -> list[dict[str, Any]]:
        """Geometries: one, or one for each part of an outline that goes into polygons."""
        kind = control.gives
        if kind == "box" and isinstance(shape, tuple):  # what most data sets are made of
            width, height = size_wh
            x0, y0, x1, y1 = shape
            places = {"x": x0 / width, "y": y0 / height, "width": (x1 - x0) / width, "height": (y1 - y0) / height}
            return [{**{name: round(100 * share, DECIMALS) for name, share in places.items()}, "rotation": 0}]
        if not isinstance(shape, Outline):
            if kind != "box":
                self.written.changed[f"boxes became {_plural(kind)}"] += 1
            return [_rounded(geometry_value(control.result_type, shape, None, size_wh))]
        if kind == "polygon":
            if shape.holes:
                self.written.changed["outlines lost their holes"] += 1
            if len(shape.parts) > 1:
                self.written.changed["objects of several parts became a polygon for each"] += 1
            scale = 100 / np.array(size_wh)
            return [{"points": np.round(part * scale, DECIMALS).tolist(), "closed": True} for part in shape.parts]
        if kind != "mask":
            self.written.changed[f"outlines became {_plural(kind)}"] += 1
        mask = None if kind == "box" else mask_of_outline(shape, size_wh)
        return [_rounded(geometry_value(control.result_type, enclosing_xyxy(shape), mask, size_wh))]


def _rounded(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(one, DECIMALS) if isinstance(one, float) else one for key, one in value.items()}


def _wanted(shape: Shape) -> tuple[Gives, ...]:
    if not isinstance(shape, Outline):
        return FOR_BOXES
    return FOR_PARTS if shape.holes or len(shape.parts) > 1 else FOR_POLYGONS


def _plural(kind: Gives | None) -> str:
    return {"box": "boxes", "polygon": "polygons", "mask": "masks", "ellipse": "ellipses"}[kind or "box"]


def _attribute(text: str) -> str:
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), ('"', "&quot;")):
        text = text.replace(char, entity)
    return text
