"""An instance that SAM 3 found → regions of the editor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from label_config.interface import Control
from tator_ml.engine.concepts import Instance
from tator_ml.prompts.assists import BOX_TYPES
from tator_sdk.geometry import RotatedBox, Xyxy, iou_xyxy
from tator_sdk.regions import Region, geometry_value, labelled_regions, rotated_box_of_mask

SAME = 0.7
"""IoU from which two boxes of an answer are one object, whatever it was called."""


def distinct(found: Iterable[Instance]) -> list[Instance]:
    """Each object once, by the best of its instances."""
    kept: list[Instance] = []
    for one in sorted(found, key=lambda each: -each.score):
        if all(iou_xyxy(one.xyxy, other.xyxy) < SAME for other in kept):
            kept.append(one)
    return kept


def alike(xyxy: Xyxy, found: Iterable[Instance], least: float) -> Instance | None:
    """The instance that agrees best with a box; None where none reaches that IoU."""
    best = max(found, key=lambda one: iou_xyxy(one.xyxy, xyxy), default=None)
    return best if best is not None and iou_xyxy(best.xyxy, xyxy) >= least else None


def write_instance(
    one: Instance,
    output: Control,
    image_name: str,
    region_id: str,
    labels: Sequence[str],
    size_wh: tuple[int, int],
    *,
    score: float | None = None,
    info: Sequence[str] = (),
) -> list[Region]:
    """An instance as results of a tag, with the detector's own mask where the tag takes one.

    Args:
        one: the instance.
        output: the tag.
        image_name: name of the image tag.
        region_id: the id it takes.
        labels: that it carries.
        size_wh: the picture's size.
        score: in place of the instance's own.
        info: lines for the Info panel.

    Returns:
        Nothing where the tag takes masks and the instance has none.
    """
    boxes = output.result_type in BOX_TYPES
    if one.mask is None and not boxes:
        return []
    mask = one.mask.unpack(size_wh) if one.mask else None
    box: Xyxy | RotatedBox = one.xyxy
    if boxes and mask is not None and output.oriented_for(next(iter(labels), None)):
        box = rotated_box_of_mask(mask)
    value = geometry_value(output.result_type, box, mask, size_wh)
    given = one.score if score is None else score
    return labelled_regions(output, image_name, region_id, value, labels, size_wh, score=given, info=info)
