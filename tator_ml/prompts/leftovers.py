"""Prompts that stayed on the canvas when their objects were accepted: what is stored is freed of them.

The editor's small tick accepts a suggestion and leaves the points that asked for it, so that they are
submitted with the annotation, as regions of their own. With its setting "Keep label selected" it writes
the point's label on the accepted region too, which is then stored twice under one id.

Boxes around what an example tool is not to find (``model_negatives``) are no objects either.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from label_config.interface import Interface
from tator_sdk.annotations import labels_of
from tator_sdk.errors import TatorError
from tator_sdk.rewriting import Annotations
from tator_sdk.settings import Settings

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


class Tidier:
    """Takes leftovers out of annotations, one after the other, behind the webhooks' answers; none is passed over."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._order = ThreadPoolExecutor(1, thread_name_prefix="tator-tidy")

    def tidy(self, number: int, task: int, result: Sequence[Json], kept: Sequence[Json]) -> None:
        """See :func:`remove_leftovers`; a failure is told to the log."""
        self._order.submit(self._guarded, number, task, result, kept)

    def settle(self) -> None:
        """Wait until everything that came so far is tidied."""
        self._order.submit(lambda: None).result()

    def close(self) -> None:
        """Begin nothing more, and finish what was begun."""
        self._order.shutdown(cancel_futures=True)

    def _guarded(self, number: int, task: int, result: Sequence[Json], kept: Sequence[Json]) -> None:
        try:
            remove_leftovers(self._settings, number, task, result, kept)
        except TatorError as error:
            log.warning("task %s, annotation %s keeps its points: %s", task, number, error)
        except Exception:  # nobody waits for this thread's result
            log.exception("task %s, annotation %s keeps its points", task, number)


def remove_leftovers(settings: Settings, number: int, task: int, result: Sequence[Json], kept: Sequence[Json]) -> None:
    """Take them out of an annotation in Label Studio, unless somebody works on it: their work would be lost.

    Args:
        settings: of this installation.
        number: of the annotation.
        task: that it is of.
        result: its regions as they were submitted.
        kept: those of them that are to stay.

    Raises:
        StudioError: Label Studio did not answer, or there is no key for it.
    """
    with Annotations(settings) as annotations:
        if annotations.read(number) != list(result):
            log.info("annotation %s was changed since it was submitted, and keeps its points", number)
        elif number in annotations.drafted(task):
            log.info("annotation %s has unsaved changes, and keeps its points", number)
        else:
            annotations.write(number, list(kept))
            log.info("annotation %s: %s prompts of accepted objects removed", number, len(result) - len(kept))


def _id(item: Json) -> str:
    return str(item.get("id"))


def _is(item: Json, kinds: tuple[str, ...]) -> bool:
    return str(item.get("type")).startswith(kinds)
