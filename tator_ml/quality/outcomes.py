"""What became of each suggestion of a task, judged by its submitted annotations; docs/quality.md defines it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tator_ml.quality.overlap import has_extent, iou_of_regions
from tator_ml.suggestions import Suggested
from tator_sdk.annotations import labels_of
from tator_sdk.regions import RegionError

Json = Mapping[str, Any]
What = Literal["accepted", "edited", "relabelled", "unused", "replaced"]

SAME = 0.99
"""IoU from which a shape counts as unchanged."""
SAME_OBJECT = 0.5
"""IoU from which two suggestions, or a suggestion and a region without its id, mean one object."""
CLOCK_SECONDS = 60.0
"""By as much may the clocks of Label Studio's host and of this one differ."""
REFINED = ("points",)
"""Assists where each further prompt asks about the same object."""
LISTED = ("text", "exemplars")
"""Assists that answer with many objects, and may be asked again about the same ones."""


@dataclass(frozen=True)
class Submitted:
    """A submitted annotation.

    Attributes:
        annotation: its number; ``annotator`` that of who completed it.
        created, updated: seconds since the epoch.
        result: its regions.
        annotator: see ``annotation``; None where Label Studio does not know.
        lead_seconds: that it took, as Label Studio counts; None where it does not say.
        parent: number of the prediction that it began with.
    """

    annotation: int
    created: float
    updated: float
    result: Sequence[Any] = field(hash=False)
    annotator: int | None = None
    lead_seconds: float | None = None
    parent: int | None = None


@dataclass(frozen=True)
class Thing:
    """An object of an annotation: its region, and the labels that it carries in whatever result."""

    item: Json = field(hash=False)
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of a suggestion.

    Attributes:
        suggested: the suggestion.
        what: became of it.
        annotation: that decided; None for one that was replaced.
        final: the object as it was submitted; None where there is none.
        iou: between the two, 0..1; None where there is no final object, or it cannot be measured.
    """

    suggested: Suggested
    what: What
    annotation: int | None = None
    final: Thing | None = None
    iou: float | None = None


def things_of(result: Sequence[Any]) -> dict[str, Thing]:
    """The objects of a result by region id; key points, text and choices are none."""
    labels: dict[str, tuple[str, ...]] = {}
    items: dict[str, Json] = {}
    for item in result:
        if not isinstance(item, Mapping):
            continue
        name = str(item.get("id"))
        if has_extent(item):
            items.setdefault(name, item)
        if has_extent(item) or item.get("type") == "labels":
            labels[name] = labels.get(name) or labels_of(item)
    return {name: Thing(item, labels.get(name, ())) for name, item in items.items()}


def judge(suggested: Sequence[Suggested], annotations: Sequence[Submitted]) -> list[Outcome]:
    """What became of the suggestions of one task; those that no annotation has decided yet are left out.

    Args:
        suggested: answers to prompts, and the objects of stored predictions, once for each annotation begun with them.
        annotations: of the task, without skipped ones.
    """
    things = {one.annotation: things_of(one.result) for one in annotations}
    asked = sorted((one for one in suggested if one.annotation is None), key=lambda one: one.at)
    newest = {one.region: one for one in asked}
    outcomes = []
    earlier: dict[str, Suggested] = {}
    decided: set[tuple[int, str]] = set()
    for one in asked:
        if newest[one.region] is not one:
            earlier[one.region] = one
            outcomes.append(Outcome(one, "replaced"))
            continue
        before = one.before or (earlier[one.region].item if one.region in earlier else None)
        outcome = _asked(one, before, annotations, things, asked)
        if outcome is not None:
            outcomes.append(outcome)
            if outcome.annotation is not None:
                decided.add((outcome.annotation, one.region))
    stored: dict[int, list[Suggested]] = {}
    for one in suggested:
        if one.annotation is not None and one.annotation in things:
            stored.setdefault(one.annotation, []).append(one)
    for annotation, offered in stored.items():
        outcomes += _stored(offered, annotation, things[annotation], decided)
    return outcomes


def _asked(
    one: Suggested,
    before: Json | None,
    annotations: Sequence[Submitted],
    things: Mapping[int, Mapping[str, Thing]],
    asked: Sequence[Suggested],
) -> Outcome | None:
    """What became of an answer to a prompt; None where nobody has submitted since."""
    since = sorted(
        (each for each in annotations if each.updated >= one.at - CLOCK_SECONDS), key=lambda each: each.created
    )
    for each in since:
        if one.region in things[each.annotation]:
            return _compared(one, before, each.annotation, things[each.annotation][one.region])
    if any(_asked_again(one, later) for later in asked if later.at > one.at):
        return Outcome(one, "replaced")
    return Outcome(one, "unused", since[0].annotation) if since else None


def _asked_again(one: Suggested, later: Suggested) -> bool:
    if one.assist != later.assist or not one.prompts & later.prompts:
        return False
    return one.assist in REFINED or (one.assist in LISTED and _overlap(one.item, later.item) >= SAME_OBJECT)


def _stored(
    offered: Sequence[Suggested], annotation: int, things: Mapping[str, Thing], decided: set[tuple[int, str]]
) -> list[Outcome]:
    """What became of a prediction's objects in an annotation that was begun with it."""
    outcomes, left = [], []
    taken = {one.region for one in offered if one.region in things}
    for one in offered:
        if (annotation, one.region) in decided:  # somebody asked about it since
            outcomes.append(Outcome(one, "replaced"))
        elif one.region in things:
            outcomes.append(_compared(one, None, annotation, things[one.region]))
        else:
            left.append(one)
    free = {
        name: thing
        for name, thing in things.items()
        if name not in taken
        and (annotation, name) not in decided
        and str(thing.item.get("origin", "")).startswith("prediction")
    }
    for one in left:
        near = max(((_overlap(one.item, thing.item), name) for name, thing in free.items()), default=(0.0, ""))
        if near[0] >= SAME_OBJECT:
            outcomes.append(_compared(one, None, annotation, free.pop(near[1])))
        else:
            outcomes.append(Outcome(one, "unused", annotation))
    return outcomes


def _compared(one: Suggested, before: Json | None, annotation: int, final: Thing) -> Outcome:
    try:
        iou = iou_of_regions(one.item, final.item)
    except RegionError:
        iou = None
    if before is not None and (iou is None or iou < SAME) and _overlap(before, final.item) >= SAME:
        drawn = labels_of(before)
        if not drawn or drawn == final.labels:  # the suggestion was turned down, and what stood before was kept
            return Outcome(one, "unused", annotation, final, iou)
    if one.labels and one.labels != final.labels:
        return Outcome(one, "relabelled", annotation, final, iou)
    return Outcome(one, "accepted" if iou is not None and iou >= SAME else "edited", annotation, final, iou)


def _overlap(one: Json, other: Json) -> float:
    try:
        return iou_of_regions(one, other)
    except RegionError:
        return 0.0
