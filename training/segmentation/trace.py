"""The boxes of one picture → masks of an engine → outlines or oriented boxes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tator_ml.engine.client import EngineAway
from tator_ml.engine.masks import BoxMask, SegmentAsk, Segmented
from tator_ml.engine.messages import Busy
from tator_sdk.geometry import MaskArray, Outline, Ring, RotatedBox, Xyxy, largest_component
from tator_sdk.polygons import outline_of_mask
from tator_sdk.regions import rotated_box_of_mask
from tator_sdk.requests import SegmentationBuild
from training.segmentation.source import Drawn

DECIMALS = 3  # of a pixel
AWAY_SECONDS = (1.0, 3.0, 10.0, 30.0)  # an engine that ended is started again by itself


class Segments(Protocol):
    """What the builder needs of an engine."""

    def segment(self, ask: SegmentAsk) -> Segmented:
        """Segment all boxes of a picture in the batch lane."""
        ...

    def segmenter_version(self, name: str | None = None) -> str:
        """Version of the segmenter of a name."""
        ...


@dataclass(frozen=True, eq=False)
class Traced:
    """An object of the data set that is made.

    Attributes:
        drawn: index of the box it was made from.
        shape: in pixels.
        quality: predicted IoU of its mask, 0..1; None for a box that was kept, or an outline that was drawn.
        kept: why the box was kept; empty otherwise.
    """

    drawn: int
    shape: Outline | RotatedBox
    quality: float | None = None
    kept: str = ""

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        if isinstance(self.shape, RotatedBox):
            box = self.shape
            about: dict[str, Any] = {"turned": [box.x, box.y, box.width, box.height, box.rotation]}
        else:
            about = {"parts": _lists(self.shape.parts), "holes": _lists(self.shape.holes)}
        return {"drawn": self.drawn, "quality": self.quality, "kept": self.kept, **about}

    @classmethod
    def load(cls, about: Mapping[str, Any]) -> Traced:
        """What :meth:`dump` gave."""
        shape: Outline | RotatedBox
        if "turned" in about:
            shape = RotatedBox(*about["turned"])
        else:
            shape = Outline(_rings(about["parts"]), _rings(about["holes"]))
        return cls(int(about["drawn"]), shape, about["quality"], str(about["kept"]))

    @property
    def vertices(self) -> int:
        """Corners of all rings."""
        return 4 if isinstance(self.shape, RotatedBox) else sum(map(len, (*self.shape.parts, *self.shape.holes)))


def trace(
    engine: Segments, request: SegmentationBuild, segmenter: str | None, image: str, drawn: Sequence[Drawn]
) -> list[Traced]:
    """What the builder makes of one picture's boxes; outlines that were drawn are kept.

    Args:
        engine: segments; waited for while it is away.
        request: thresholds, and what is wanted.
        segmenter: its name.
        image: content hash.
        drawn: what stands on the picture.
    """
    asked = [index for index, one in enumerate(drawn) if one.outline is None or request.oriented]
    made = [Traced(index, one.outline) for index, one in enumerate(drawn) if one.outline and not request.oriented]
    if asked:
        boxes = tuple(drawn[index].xyxy for index in asked)
        ask = SegmentAsk(image, boxes, segmenter, request.mask_threshold, request.max_results)
        answer = patiently(lambda: engine.segment(ask))
        for index, masks in zip(asked, answer.masks, strict=True):
            made += _of_box(request, index, drawn[index].xyxy, masks)
    return sorted(made, key=lambda one: one.drawn)


def _of_box(request: SegmentationBuild, index: int, box: Xyxy, masks: Sequence[BoxMask]) -> list[Traced]:
    made, why = [], "the segmenter sees nothing in it"
    for mask in masks:
        part = mask.part()
        if mask.quality < request.score_threshold:
            why = f"its mask is trusted by {mask.quality:.2f}, below {request.score_threshold:g}"
        elif (size := int(part.sum())) < request.min_size:
            why = f"its mask has {size} pixels, below {request.min_size}"
        elif (shape := _shape(request, part, mask.xywh[:2])) is not None:
            made.append(Traced(index, shape, round(mask.quality, 4)))
    return made or [Traced(index, _four_points(request, box), None, why)]


def _shape(request: SegmentationBuild, part: MaskArray, offset_xy: tuple[int, int]) -> Outline | RotatedBox | None:
    x, y = offset_xy
    if request.oriented:
        turned = rotated_box_of_mask(largest_component(part))
        return RotatedBox(turned.x + x, turned.y + y, turned.width, turned.height, turned.rotation)
    outline = outline_of_mask(part, request.least_iou, request.simplify_epsilon)
    if outline is None:
        return None
    moved = [tuple((ring + offset_xy).round(DECIMALS) for ring in rings) for rings in (outline.parts, outline.holes)]
    return Outline(*moved)


def _four_points(request: SegmentationBuild, box: Xyxy) -> Outline | RotatedBox:
    x0, y0, x1, y1 = box
    if request.oriented:
        return RotatedBox(x0, y0, x1 - x0, y1 - y0)
    return Outline((np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64),))


def patiently(call: Callable[[], Any]) -> Any:
    """Call an engine; wait where it is away or has too much to do.

    Raises:
        EngineError: it stays away.
    """
    for seconds in AWAY_SECONDS:
        try:
            return call()
        except (EngineAway, Busy):
            time.sleep(seconds)
    return call()


def _lists(rings: Sequence[Ring]) -> list[list[list[float]]]:
    return [ring.tolist() for ring in rings]


def _rings(lists: Sequence[Any]) -> tuple[Ring, ...]:
    return tuple(np.array(ring, np.float64) for ring in lists)
