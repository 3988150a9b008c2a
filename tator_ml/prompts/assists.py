"""What an annotator drew → a prompt for the engine, and the engine's answer → regions.

What Label Studio's editor does with an answer decides which id it takes (tests/browser/test_accepting.py):

- A suggestion whose id stands on the canvas replaces that region in place, however it is accepted: in the
  bottom bar, with the small tick beside it (polygons have none), or automatically. So a box and a stroke are
  answered under their own ids, and a tweaked box under the id it stands under.
- Not so a rectangle in a key point's place: that stays a key point, calls itself a rectangle and is stored
  without its height. So points are answered with a box under another id, made from the first point's, and
  with a mask or polygon under the first point's own. A further point comes with all earlier ones and changes
  the same region.
- Accepting or rejecting in the bottom bar, or automatically, deletes every prompt. The small tick and cross
  delete none: points that no region replaced stay, come again with the next object's points of the same
  label (pending.py leaves them out), and are submitted (leftovers.py takes them out).
- Whatever is suggested next replaces what is pending: a prompt with another label or tool, before the first
  is accepted, takes the first away, and accepting in the bottom bar then deletes its prompt as well.
- What is pending when the annotation is submitted is not stored: the prompt is, as it was drawn.
- A click or drag that begins inside a standing region takes hold of that region, unless Ctrl is held.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from label_config.reader import Control, Interface
from tator_ml.engine.messages import Found, Prompt
from tator_ml.prompts.notes import noted
from tator_sdk.annotations import labels_of
from tator_sdk.errors import TatorError
from tator_sdk.geometry import RotatedBox, Xyxy, box_of_mask
from tator_sdk.regions import (
    Region,
    RegionError,
    agreement_of_boxes,
    geometry_value,
    labelled_regions,
    read_box,
    read_point,
    read_stroke,
    rotated_box_of_mask,
)
from tator_sdk.strokes import stroke_points

Json = Mapping[str, Any]

BOX_TYPES = ("rectanglelabels", "rectangle")


class AssistError(TatorError):
    """A prompt that cannot be served; the message is for the annotator."""


@dataclass(frozen=True)
class Assist:
    """One object an annotator points at.

    Attributes:
        prompt: in pixels.
        region_id: the id the answer takes.
        output: the tag the answer is written for.
        image_name: name of the image tag.
        labels: what the annotator chose; kept where the class head abstains.
        refine: decode a mask.
        classify: ask the class head.
        drawn: the box or stroke as it came, returned unchanged where nothing better is known.
        rotation: degrees of a rotated rectangle, 0 for everything else.
        oriented: answer with the smallest rectangle around the mask, turned as it may be.
    """

    prompt: Prompt
    region_id: str
    output: Control
    image_name: str
    labels: tuple[str, ...]
    refine: bool
    classify: bool
    drawn: Json | None = None
    rotation: float = 0.0
    oriented: bool = False


def prompt_kind(control: Control, labels: Sequence[str] = ()) -> str:
    """``points``, ``boxes``, ``strokes``, ``text``, ``tweak`` or ``exemplars``: what the control's regions mean.

    Raises:
        AssistError: the tag takes no prompts.
    """
    if "tweak" in (control.assists_for(labels[0] if labels else None) or ()):
        return "tweak"
    if control.takes is None:
        raise AssistError(f"The tag '{control.name}' ({control.tag}) takes no prompts; use a point or a box tool.")
    return "exemplars" if control.takes_exemplars else control.takes


def choose_output(interface: Interface, control: Control, image_name: str, wanted: str | None = None) -> Control:
    """The tag that takes the answer.

    ``model_output`` on the prompt's tag decides; else a box stays a box and a stroke a stroke, and
    points go to the first tag of the configuration that takes a geometry, of the ``wanted`` kind if there is one.

    Raises:
        AssistError: the configuration has no such tag; the sentence says what to add.
    """
    outputs = interface.outputs_for(image_name, control)
    if not outputs:
        kinds = " or ".join(sorted(control.outputs or ("boxes, masks or polygons",)))
        raise AssistError(f"The labelling configuration has no tag for {kinds}; add one, e.g. <RectangleLabels>.")
    if control in outputs:
        return control
    return next((one for one in outputs if one.gives == wanted), outputs[0])


def standing_regions(task: Json) -> list[Json]:
    """All regions of a task's drafts, annotations and predictions, the likeliest to be on screen first."""
    regions: list[Json] = []
    for source in ("drafts", "annotations", "predictions"):
        for holder in reversed(task.get(source) or []):
            result = holder.get("result") if isinstance(holder, Mapping) else None
            regions += [item for item in result or [] if isinstance(item, Mapping)]
    return regions


def _value(item: Json) -> Json:
    value = item.get("value")
    if not isinstance(value, Mapping):
        raise RegionError("The prompt has no coordinates; draw it again.")
    return value


def _is_positive(item: Json) -> bool:
    """Both dialects: ``is_positive`` beside the value, or ``positive`` within."""
    return bool(item.get("is_positive", _value(item).get("positive", True)))


def _object_id(prompt_id: str) -> str:
    return hashlib.sha256(f"tator:{prompt_id}".encode()).hexdigest()[:10]


def _options(control: Control, labels: Sequence[str], project_assists: frozenset[str] | None) -> tuple[bool, bool]:
    """Whether to refine and to classify: label and tag decide, else the project, else both."""
    chosen = control.assists_for(labels[0] if labels else None)
    if chosen is not None and "tweak" in chosen:
        rest = chosen - {"tweak"} or project_assists
        return True, rest is None or "classify" in rest
    if chosen is None:
        chosen = project_assists
    return chosen is None or "refine" in chosen, chosen is None or "classify" in chosen


def _oriented(prompt: Control, output: Control, labels: Sequence[str]) -> bool:
    """``model_oriented`` of the tag that is drawn with, else of the one that takes the answer."""
    label = labels[0] if labels else None
    said = prompt.oriented_for(label)
    return bool(output.oriented_for(label) if said is None else said)


@dataclass(frozen=True)
class Drawing:
    """The prompts of one request on one picture.

    Attributes:
        items: ``context.result``, all of one control.
        task: the request's task with its drafts and annotations.
        size_wh: the picture's size in pixels.
        pending: ids of boxes and strokes that wait for an answer.
    """

    interface: Interface
    control: Control
    image_name: str
    items: Sequence[Json]
    task: Json
    size_wh: tuple[int, int]
    pending: frozenset[str]
    project_assists: frozenset[str] | None = None
    project_output: str | None = None

    def assists(self) -> list[Assist]:
        """One assist for each object meant.

        Raises:
            AssistError, RegionError: with a sentence for the annotator.
        """
        kind = prompt_kind(self.control, labels_of(self.items[-1]))
        if kind == "points":
            return [self._points()]
        if kind == "tweak":
            return [self._tweak()]
        drawn = [item for item in self.items if str(item.get("id")) in self.pending]
        return [self._stroke(item) if kind == "strokes" else self._box(item) for item in drawn]

    def _points(self) -> Assist:
        points = tuple(read_point(_value(item), self.size_wh) for item in self.items)
        positive = tuple(_is_positive(item) for item in self.items)
        if not any(positive):
            raise AssistError("All points are negative; click once on the object itself.")
        labels = labels_of(self.items[0])
        refine, classify = _options(self.control, labels, self.project_assists)
        output = choose_output(self.interface, self.control, self.image_name, self.project_output)
        first = str(self.items[0].get("id"))
        return Assist(
            prompt=Prompt(points, positive),
            region_id=_object_id(first) if output.result_type in BOX_TYPES else first,
            output=output,
            image_name=self.image_name,
            labels=labels,
            refine=refine,
            classify=classify,
            oriented=_oriented(self.control, output, labels),
        )

    def _box(self, item: Json) -> Assist:
        box = read_box(_value(item), self.size_wh)
        refine, classify = _options(self.control, labels_of(item), self.project_assists)
        output = choose_output(self.interface, self.control, self.image_name)
        return Assist(
            prompt=Prompt(box_xyxy=box.enclosing_xyxy()),
            region_id=str(item.get("id")),
            output=output,
            image_name=self.image_name,
            labels=labels_of(item),
            refine=refine,
            classify=classify,
            drawn=item,
            rotation=box.rotation,
            oriented=_oriented(self.control, output, labels_of(item)),
        )

    def _stroke(self, item: Json) -> Assist:
        drawn_wh = (
            int(item.get("original_width") or self.size_wh[0]),
            int(item.get("original_height") or self.size_wh[1]),
        )
        mask = read_stroke(_value(item), drawn_wh, self.size_wh)
        points = stroke_points(mask)
        refine, classify = _options(self.control, labels_of(item), self.project_assists)
        output = choose_output(self.interface, self.control, self.image_name)
        return Assist(
            prompt=Prompt(points, (True,) * len(points)) if refine else Prompt(box_xyxy=box_of_mask(mask)),
            region_id=str(item.get("id")),
            output=output,
            image_name=self.image_name,
            labels=labels_of(item),
            refine=refine,
            classify=classify,
            drawn=item,
            oriented=_oriented(self.control, output, labels_of(item)),
        )

    def _tweak(self) -> Assist:
        point = read_point(_value(self.items[-1]), self.size_wh)
        standing = box_under(point, standing_regions(self.task), self.image_name, self.size_wh)
        if standing is None:
            raise AssistError(
                "There is no box under the point; Ctrl-click inside the one to tighten (a new one: five seconds later)."
            )
        item, box = standing
        refine, classify = _options(self.control, labels_of(self.items[-1]), self.project_assists)
        output = self.interface.control(str(item["from_name"]))
        return Assist(
            prompt=Prompt(box_xyxy=box.enclosing_xyxy()),
            region_id=str(item["id"]),
            output=output,
            image_name=self.image_name,
            labels=labels_of(item),
            refine=refine,
            classify=classify,
            drawn=item,
            rotation=box.rotation,
            oriented=_oriented(output, output, labels_of(item)),
        )


def box_under(
    point_xy: tuple[float, float], regions: Iterable[Json], image_name: str, size_wh: tuple[int, int]
) -> tuple[Json, RotatedBox] | None:
    """The smallest standing rectangle around a point; of several versions of one id the first."""
    found: list[tuple[float, Json, RotatedBox]] = []
    seen: set[str] = set()
    for item in regions:
        rectangle = item.get("type") in BOX_TYPES and item.get("to_name") == image_name
        if not rectangle or "id" not in item or str(item["id"]) in seen:
            continue
        seen.add(str(item["id"]))
        try:
            box = read_box(_value(item), size_wh)
        except RegionError:  # somebody else's broken region must not spoil this click
            continue
        x0, y0, x1, y1 = box.enclosing_xyxy()
        if x0 <= point_xy[0] <= x1 and y0 <= point_xy[1] <= y1:
            found.append((box.width * box.height, item, box))
    if not found:
        return None
    _, item, box = min(found, key=lambda entry: entry[0])
    return item, box


def write_regions(
    assist: Assist, found: Found | None, interface: Interface, size_wh: tuple[int, int], agreement: float
) -> list[Region]:
    """The engine's answer as results; none where nothing was found and nothing was drawn.

    A region of a plain ``<Rectangle>`` that shares a ``<Labels>`` tag is two results with one id, the second for the
    label; every other region is one.

    Args:
        assist: what was asked.
        found: what the engine answered.
        interface: maps the head's classes to the configuration's labels.
        size_wh: the picture's size.
        agreement: least IoU of a refined rotated box with the drawn one.
    """
    if found is None:
        return [dict(assist.drawn)] if assist.drawn else []
    verdict = found.verdict
    named = interface.find_label(assist.output, verdict.label) if verdict and verdict.label else None
    labels = (named,) if named else assist.labels
    if assist.output.labels and not labels:
        raise AssistError("Pick a label first, then click; the class head is not sure what this is.")
    known = {label.value for label in assist.output.labels}
    if known and not set(labels) <= known:
        raise AssistError(
            f"The tag '{assist.output.name}' has no label '{labels[0]}'; it has {', '.join(sorted(known))}."
        )
    value = _written_value(assist, found, size_wh, agreement)
    score = verdict.probability if verdict else found.quality
    info = []
    if verdict:
        info.append(" · ".join(f"{name} {share:.2f}" for name, share in verdict.top))
    if found.quality is not None and found.refined:
        info.append(f"mask quality {found.quality:.2f}")
    if found.reason:
        info.append(f"drawn box kept: {found.reason}")
    regions = labelled_regions(
        assist.output, assist.image_name, assist.region_id, value, labels, size_wh, score=score, info=info
    )
    if assist.drawn is not None and (meta := noted(assist.drawn, info)):
        regions = [{**one, "meta": meta} for one in regions]
    return regions


def _written_value(assist: Assist, found: Found, size_wh: tuple[int, int], agreement: float) -> dict[str, Any]:
    result_type = assist.output.result_type
    same_type = assist.drawn is not None and assist.drawn.get("type") == result_type
    if not found.refined and same_type and assist.drawn is not None:
        kept = dict(_value(assist.drawn))  # to the digit, so that nothing moves under the annotator's hand
        kept.pop(result_type, None)
        kept.pop("labels", None)
        return kept
    mask = found.mask.unpack() if found.mask else None
    box: RotatedBox | Xyxy = found.xyxy
    if assist.rotation and mask is not None and assist.drawn is not None:
        drawn = read_box(_value(assist.drawn), size_wh)
        turned = rotated_box_of_mask(mask, like=assist.rotation)
        box = turned if agreement_of_boxes(turned, drawn, size_wh) >= agreement else drawn
    elif assist.oriented and mask is not None and mask.any():  # the guard has compared the upright boxes
        box = rotated_box_of_mask(mask)
    return geometry_value(result_type, box, mask, size_wh)


def needs_mask(assist: Assist) -> bool:
    """Whether the answer's geometry needs more than an upright box."""
    return bool(assist.rotation) or assist.oriented or assist.output.result_type not in BOX_TYPES


def takes_masks(output: Control) -> bool:
    """Whether a tag's results, of any label, need more than upright boxes."""
    oriented = (output.oriented_for(name) for name in (None, *output.classes))
    return output.result_type not in BOX_TYPES or any(oriented)
