"""Masks and COCO's run lengths ↔ outlines along the pixels' edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from tator_sdk.formats.dataset import Outline, Ring
from tator_sdk.geometry import MaskArray, box_of_mask, painting_order
from tator_sdk.polygons import pixel_rings

MOST_PIXELS = 2**30  # of a picture; a mask needs memory for each


def exact_outline(mask: MaskArray) -> Outline | None:
    """The outline of a mask (H, W), exactly along its pixels' outer edges; None where it is empty.

    Parts are 8-connected, holes 4-connected. Filling it again gives the same mask.
    """
    found = box_of_mask(mask)
    if found is None:
        return None
    x0, y0, x1, y1 = (int(edge) for edge in found)
    parts: list[Ring] = []
    holes: list[Ring] = []
    for ring, hole in pixel_rings(np.pad(mask[y0:y1, x0:x1], 1)):
        (holes if hole else parts).append(_corners(ring + np.array([x0 - 1, y0 - 1])))
    return Outline(tuple(parts), tuple(holes))


def mask_of_rings(parts: Sequence[Ring], holes: Sequence[Ring], size_wh: tuple[int, int]) -> MaskArray:
    """Mask (H, W) of rings that are painted from the largest to the smallest, so that an island in a hole is seen."""
    width, height = size_wh
    mask = np.zeros((height, width), bool)
    for ring, filled in painting_order(Outline(tuple(parts), tuple(holes))):
        runs = coco_mask.merge(coco_mask.frPyObjects([ring.ravel().tolist()], height, width))
        mask[mask_of_rle({"size": [height, width], "counts": runs["counts"].decode("ascii")}, size_wh)] = filled
    return mask


def _corners(points: NDArray[np.int32]) -> Ring:
    """Neither repeated points nor such as lie on a straight line between their neighbours."""
    points = points[np.any(points != np.roll(points, 1, axis=0), axis=1)]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    back = (before * after).sum(1) < 0
    return np.asarray(points[turns | back], np.float64)


def mask_of_rle(written: Mapping[str, Any], size_wh: tuple[int, int]) -> MaskArray:
    """COCO's run lengths, as numbers or as text → mask (H, W).

    The lengths are checked before anything is made of them: pycocotools' C code reads past the end of a text that
    breaks off, and these come from files of unknown origin.

    Args:
        written: ``counts`` and ``size`` (height, width).
        size_wh: of the picture; another one is refused.

    Raises:
        ValueError: it cannot be used; the message says why.
    """
    width, height = size_wh
    if list(written.get("size") or ()) != [height, width]:
        raise ValueError(f"its mask is of size {written.get('size')}, the picture of [{height}, {width}]")
    if width * height > MOST_PIXELS:
        raise ValueError("its mask is larger than any picture")
    counts = written.get("counts")
    runs = _runs_of_text(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, Sequence) or not all(isinstance(run, (int, float)) and run >= 0 for run in runs):
        raise ValueError("its mask's run lengths cannot be read")
    # each by itself first: a sum of numbers near 2**62 comes round to what fits, and repeat writes where they point
    lengths = np.array([] if any(run > width * height for run in runs) else runs, np.int64)
    if int(lengths.sum()) != width * height:
        raise ValueError("its mask's run lengths do not fill the picture")
    values = np.arange(len(lengths)) % 2 == 1
    return np.asarray(np.repeat(values, lengths).reshape(width, height).T)


def _runs_of_text(text: str) -> list[int]:
    """The lengths in COCO's text form (pycocotools' ``rleFrString``): groups of five bits, differences from the third.

    Raises:
        ValueError: the text is none of that form.
    """
    runs: list[int] = []
    value = shift = 0
    for char in text.encode("ascii", "replace"):
        group = char - 48
        if not 0 <= group < 64 or shift > 60:
            raise ValueError("its mask's run lengths cannot be read")
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            if group & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("its mask's run lengths break off")
    return runs
