"""Prompts that stayed on the canvas when their objects were accepted: what is stored is freed of them.

The editor's small tick accepts a suggestion and leaves the points that asked for it, so that they are
submitted with the annotation, as regions of their own. With its setting "Keep label selected" it writes
the point's label on the accepted region too, which is then stored twice under one id.

Boxes around what an example tool is not to find (``model_negatives``) are no objects either.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from label_config.interface import Interface
from tator_sdk.annotations import labels_of
from tator_sdk.settings import Settings
from tator_sdk.studio import open_studio, sentences

log = logging.getLogger(__name__)

Json = Mapping[str, Any]

POINTS = ("keypoint",)
Negative = tuple[str, str]
"""Name of a tag that takes examples, and one of its labels that shows what is not meant."""

SHAPES = ("rectangle", "polygon", "brush", "bitmask", "ellipse")


def without_leftovers(
    result: Sequence[Json], suggested: Sequence[Json], negatives: frozenset[Negative] = frozenset()
) -> list[Json]:
    """An annotation's regions without the points that asked for another region of it, and without negative examples.

    Args:
        result: the annotation's regions.
        suggested: what was suggested on the task, as :meth:`Suggestions.of_task` tells it.
        negatives: tags and labels of negative examples (:func:`negatives_of`).
    """
    points = {_id(item) for item in result if _is(item, POINTS)}
    shapes = {_id(item) for item in result if _is(item, SHAPES)}
    asked = {str(name) for row in suggested if row["region_id"] in shapes for name in row["prompt_ids"]}
    gone = (points & asked) - shapes
    gone |= {
        _id(item) for item in result if any((item.get("from_name"), name) in negatives for name in labels_of(item))
    }
    return [item for item in result if _id(item) not in gone and not (_is(item, POINTS) and _id(item) in shapes)]


def negatives_of(interface: Interface) -> frozenset[Negative]:
    """Tags and labels whose boxes show what is not meant; a label beside its tag stands under that one's name."""
    return frozenset(
        (control.labels_from or control.name, label.value)
        for control in interface.controls
        for label in control.labels
        if control.is_negative(label.value)
    )


def remove_leftovers(
    settings: Settings, annotation_id: int, suggested: Sequence[Json], negatives: frozenset[Negative] = frozenset()
) -> None:
    """Take them out of an annotation in Label Studio, as it stands there now.

    Raises:
        StudioError: it did not answer, or there is no key for it.
    """
    with sentences(settings.label_studio_url):
        studio = open_studio(settings)
        result = list(studio.annotations.get(id=annotation_id).result or [])
        kept = without_leftovers(result, suggested, negatives)
        if len(kept) < len(result):
            studio.annotations.update(id=annotation_id, result=kept)
            log.info("annotation %s: %s prompts of accepted objects removed", annotation_id, len(result) - len(kept))


def _id(item: Json) -> str:
    return str(item.get("id"))


def _is(item: Json, kinds: tuple[str, ...]) -> bool:
    return str(item.get("type")).startswith(kinds)
