"""An ask's prompts on a picture that is warm → what was found for each, drawn boxes kept where the guard says so.

What was found gets its classes here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tator_ml.engine.classify import Classifier
from tator_ml.engine.memory import Ladder
from tator_ml.engine.messages import Ask, Found, OutOfMemory, PackedMask, Prompt
from tator_ml.engine.refine import Guard, Segment, objections, segment_boxes, segment_points
from tator_ml.engine.segmenters.base import Embedding, Segmenter
from tator_sdk.geometry import Xyxy, area_xyxy, clip_xyxy


def answered(
    segmenter: Segmenter, embedding: Embedding, ask: Ask, guard: Guard, usual_area: float | None
) -> list[Found | None]:
    """One answer for each prompt; None where the segmenter sees nothing at the points.

    All boxes go through one decoder batch.

    Args:
        segmenter: that made the embedding.
        embedding: of the picture.
        ask: prompts, and what is wanted.
        guard: of drawn boxes.
        usual_area: of objects of the drawn label, as a share of the picture; None where it is not known.
    """
    found: list[Found | None] = [None] * len(ask.prompts)
    boxed: dict[int, Xyxy] = {}
    for index, prompt in enumerate(ask.prompts):
        box = prompt.box_xyxy and clip_xyxy(prompt.box_xyxy, embedding.size_wh)
        if box and not prompt.points_xy:
            if area_xyxy(box) < 1:
                found[index] = Found(box, refined=False, reason="it is smaller than a pixel")
            elif ask.refine:
                boxed[index] = box
            else:
                found[index] = Found(box, refined=False)
        elif prompt.points_xy:
            clipped = Prompt(prompt.points_xy, prompt.positive, box or None)
            segment = segment_points(segmenter, embedding, clipped, usual_area)
            found[index] = None if segment is None else _taken(segment, ask)
    segments = segment_boxes(segmenter, embedding, list(boxed.values())) if boxed else []
    for (index, drawn), segment in zip(boxed.items(), segments, strict=True):
        found[index] = _guarded(segment, drawn, ask, guard)
    return found


def classified(
    classifier: Classifier, pixels: NDArray[np.uint8], found: Sequence[Found | None], ladder: Ladder, segmenter: str
) -> list[Found | None]:
    """What was found with its classes; without them where memory does not even suffice for one box at a time.

    Args:
        classifier: of boxes.
        pixels: the picture (H, W, 3) uint8 RGB.
        found: on it.
        ladder: climbs down where memory is short.
        segmenter: name of the one at work, which is not released.
    """
    boxes = [one.xyxy for one in found if one is not None]
    try:
        verdicts = ladder.run(
            segmenter,
            lambda: classifier.classify(pixels, boxes),
            ("boxes one by one", lambda: [classifier.classify(pixels, [box])[0] for box in boxes]),
        )
    except OutOfMemory:
        return list(found)
    named = iter(verdicts)
    return [one and replace(one, verdict=next(named)) for one in found]


def in_words(ask: Ask) -> str:
    """What an ask is about, for whoever looks on: ``2 objects by points and 1 box``."""
    points = sum(bool(one.points_xy) for one in ask.prompts)
    boxes = len(ask.prompts) - points
    named = [
        f"{points} {'object' if points == 1 else 'objects'} by points" if points else "",
        f"{boxes} {'box' if boxes == 1 else 'boxes'}" if boxes else "",
    ]
    return " and ".join(one for one in named if one)


def _guarded(segment: Segment | None, drawn: Xyxy, ask: Ask, guard: Guard) -> Found:
    if segment is None:
        return Found(drawn, refined=False, reason="the segmenter sees nothing in it")
    against = objections(segment, drawn, guard)
    if against:
        return Found(drawn, False, segment.quality, "the refined box " + " and ".join(against))
    return _taken(segment, ask)


def _taken(segment: Segment, ask: Ask) -> Found:
    mask = PackedMask.pack(segment.mask) if ask.masks else None
    return Found(segment.xyxy, True, segment.quality, None, mask)
