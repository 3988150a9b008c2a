"""What jobs and engine say to each other about masks; as :mod:`messages`, free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tator_sdk.geometry import MaskArray, Xyxy, box_of_mask

MARGIN = 4
"""Pixels around a mask that travel with it: an outline's corners may lie outside of the pixels."""


@dataclass(frozen=True)
class SegmentAsk:
    """Boxes of one picture to be segmented, for jobs: in the batch lane, without guard or class.

    Attributes:
        image: content hash.
        boxes: in pixels.
        segmenter: its name as in the settings; None for the engine's own.
        mask_threshold: probability from which a pixel belongs to the mask, above 0 and below 1.
        max_results: masks for each box, best first; more than one asks the model for its alternatives.
    """

    image: str
    boxes: tuple[Xyxy, ...]
    segmenter: str | None = None
    mask_threshold: float = 0.5
    max_results: int = 1


@dataclass(frozen=True, eq=False)
class BoxMask:
    """A mask as bits of the part of the picture that it lies in.

    Attributes:
        xywh: left, top, width and height of that part in pixels; a few pixels more than the mask on each side.
        quality: the segmenter's estimate of its IoU, 0..1.
        bits: ``numpy.packbits`` of the part's rows.
    """

    xywh: tuple[int, int, int, int]
    quality: float
    bits: bytes

    @classmethod
    def pack(cls, mask: MaskArray, quality: float) -> BoxMask | None:
        """Mask (H, W) → bits; None where it is empty."""
        box = box_of_mask(mask)
        if box is None:
            return None
        x0, y0 = max(int(box[0]) - MARGIN, 0), max(int(box[1]) - MARGIN, 0)
        part = mask[y0 : int(box[3]) + MARGIN, x0 : int(box[2]) + MARGIN]
        return cls((x0, y0, part.shape[1], part.shape[0]), quality, np.packbits(part).tobytes())

    def part(self) -> MaskArray:
        """The part (h, w) of the picture that the mask lies in."""
        _, _, width, height = self.xywh
        return np.unpackbits(np.frombuffer(self.bits, np.uint8), count=width * height).reshape(height, width) > 0

    def unpack(self, size_wh: tuple[int, int]) -> MaskArray:
        """The whole mask (H, W) of a picture of that size."""
        x, y, width, height = self.xywh
        whole = np.zeros((size_wh[1], size_wh[0]), bool)
        whole[y : y + height, x : x + width] = self.part()
        return whole


@dataclass(frozen=True, eq=False)
class Segmented:
    """Masks in the order of the boxes asked about.

    Attributes:
        masks: of each box its masks, best first; none where the segmenter sees nothing.
        size_wh: the picture's width and height.
        segmenter: ``Segmenter.version``.
        came_from: where the embedding was, as in :class:`Answer`.
    """

    masks: tuple[tuple[BoxMask, ...], ...]
    size_wh: tuple[int, int]
    segmenter: str
    came_from: str = "memory"

    def dump(self) -> tuple[dict[str, object], bytes]:
        """JSON, and all bits one after the other."""
        rows = [[[*one.xywh, one.quality] for one in masks] for masks in self.masks]
        about: dict[str, object] = {
            "masks": rows,
            "size_wh": self.size_wh,
            "segmenter": self.segmenter,
            "came_from": self.came_from,
        }
        return about, b"".join(one.bits for masks in self.masks for one in masks)

    @classmethod
    def load(cls, about: Mapping[str, Any], bits: bytes) -> Segmented:
        """What :meth:`dump` gave."""
        first, found = 0, []
        for row in about["masks"]:
            masks = []
            for x, y, width, height, quality in row:
                last = first + (int(width) * int(height) + 7) // 8
                masks.append(BoxMask((int(x), int(y), int(width), int(height)), float(quality), bits[first:last]))
                first = last
            found.append(tuple(masks))
        width, height = about["size_wh"]
        return cls(tuple(found), (int(width), int(height)), str(about["segmenter"]), str(about["came_from"]))
