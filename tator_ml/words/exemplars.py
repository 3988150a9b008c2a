"""Boxes drawn around examples → all objects that look alike.

The answer is a whole set: the drawn boxes under their own ids, so that the editor replaces them in place, tightened
to the instance they show; and every other instance as a region of the same label. Boxes with a label of
``model_negatives`` are answered as they were drawn, with the new set of what was asked for before them: the editor lets
it take the place of the suggestions that are pending.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from label_config.concept_options import MOST_RESULTS, ConceptOptions, concept_options
from label_config.interface import Control
from tator_ml.engine.concepts import Concept, ConceptAsk, ConceptsFound, Instance
from tator_ml.images.decode import ImageError
from tator_ml.images.fetch import ImageRef
from tator_ml.prompts.assists import AssistError, choose_output, standing_regions, takes_masks
from tator_ml.prompts.notes import noted
from tator_ml.words.commands import Done, Typed
from tator_ml.words.examples_drawn import Examples
from tator_ml.words.found_objects import Placed
from tator_ml.words.in_time import in_time
from tator_ml.words.instances import alike, distinct, write_instance
from tator_ml.words.phrases import as_phrase
from tator_ml.words.typed import ENGINE_SHARE, UNCLEAR, standing_on
from tator_sdk.annotations import labels_of
from tator_sdk.geometry import Xyxy, clip_xyxy, iou_xyxy
from tator_sdk.regions import Region, RegionError, read_box

Json = Mapping[str, Any]
SHOWN = 0.5
"""Least IoU of a drawn box with the instance that it shows; boxes are drawn loosely."""


@dataclass(frozen=True)
class _Drawn:
    """A request of an example tool, understood.

    Attributes:
        typed: the request.
        options: of its tag.
        output: the tag that takes the answer.
        ref: the picture.
        waiting: boxes of the request that wait for an answer.
        negative: whether they show what is not meant.
        examples: all that are known of this search.
    """

    typed: Typed
    options: ConceptOptions
    output: Control
    ref: ImageRef
    waiting: Sequence[Json]
    negative: bool
    examples: Examples

    @property
    def key(self) -> tuple[object, object, str]:
        return self.typed.project, self.typed.task.get("id"), self.typed.control.name

    @property
    def own(self) -> frozenset[str]:
        return frozenset(str(item.get("id")) for item in (*self.examples.drawn, *self.waiting))


def find_alike(typed: Typed, items: Sequence[Json], pending: frozenset[str]) -> Done:
    """Find everything that looks like the drawn examples; what stands on the picture already is left out.

    Args:
        typed: what a request has; ``argument`` is without meaning.
        items: the request's boxes, all of one label.
        pending: ids of those that wait for an answer.

    Raises:
        AssistError: negative examples alone.
        RegionError: a box cannot be read.
        TatorError: with a sentence.
    """
    waiting = [item for item in items if str(item.get("id")) in pending]
    if not waiting:
        return Done([], "", assist="exemplars")
    begun = monotonic()
    drawn = _drawn(typed, items, waiting)
    try:
        found = _asked(drawn, typed.services.settings.answer_timeout_seconds)
    except ImageError:
        typed.services.images.forget(drawn.ref)
        raise
    answer = _Answer(drawn, found)
    answer.write()
    said = f"{answer.said} in {monotonic() - begun:.1f} s"
    said = "; ".join([said, *answer.left_out])
    return Done(answer.regions, said, found.segmenter, found.was_warm, "exemplars")


def _drawn(typed: Typed, items: Sequence[Json], waiting: Sequence[Json]) -> _Drawn:
    services, control, options = typed.services, typed.control, concept_options(typed.control.options)
    labels = labels_of(waiting[-1])
    if control.labels and not labels:
        raise AssistError("Pick the label of what you look for, then draw around one of them.")
    key = (typed.project, typed.task.get("id"), control.name)
    output = choose_output(typed.interface, control, typed.image_name, typed.choices.output)
    label = next(iter(labels), "")
    negative = options.is_negative(label)
    ref = typed.fetch()
    if not negative:
        examples: Examples | None = services.examples.positive(key, label, waiting)
    else:
        boxes = {str(item.get("id")): _box(item, ref.size_wh) for item in waiting}
        examples = services.examples.negative(key, boxes)
    if examples is None:
        raise AssistError(
            f"'{label}' alone says nothing: first draw around one that you look for, with its label, then around what "
            "is not meant."
        )
    return _Drawn(typed, options, output, ref, waiting, negative, examples)


def _asked(drawn: _Drawn, seconds: float) -> ConceptsFound:
    typed, options, examples = drawn.typed, drawn.options, drawn.examples
    boxes = tuple(_box(item, drawn.ref.size_wh) for item in examples.drawn)
    phrase = as_phrase(examples.label) if options.phrase else ""
    ask = ConceptAsk(
        image=drawn.ref.image,
        concepts=(Concept(phrase, boxes, examples.negatives),),
        segmenter=typed.choices.concepts_by,
        threshold=options.threshold,
        limit=min(options.max_results + len(boxes) + len(_standing(typed)[0]), MOST_RESULTS),
        masks=takes_masks(drawn.output),
        seconds=seconds * ENGINE_SHARE,
        task=f"{typed.project}/{typed.task.get('id')}/alike",
    )
    doing = f"asking {typed.choices.concepts_by} for what looks alike"
    engine = typed.services.engine
    return in_time(typed.services, typed.project, lambda: doing, lambda: engine.find_concepts(ask), seconds)


class _Answer:
    """The set of regions, and what is said of it."""

    def __init__(self, drawn: _Drawn, found: ConceptsFound) -> None:
        self.regions: list[Region] = []
        self._drawn = drawn
        self._found = found
        self._label = drawn.examples.label
        self._labels = (self._label,) if self._label else ()
        self._alike = 0
        self._standing = 0
        self._more = found.more
        self._placed, self._unclear = _standing(drawn.typed, drawn.own)

    @property
    def said(self) -> str:
        """How many were found."""
        label = self._label or "object"
        return f"{self._alike} more {label} like the drawn" if self._alike else f"no further {label} like the drawn"

    @property
    def left_out(self) -> list[str]:
        """What is not in the answer and why, in words."""
        said = [f"{self._standing} stood already"] if self._standing else []
        if self._more:
            said.append(f"{self._more} more than model_max_results allows")
        return [*said, UNCLEAR] if self._unclear else said

    def write(self) -> None:
        """Make the regions: drawn boxes first, then what else looks alike."""
        drawn, size_wh = self._drawn, self._found.size_wh
        left = distinct(self._found.found)
        around: list[Xyxy] = []
        for item in drawn.examples.drawn:
            box = _box(item, size_wh)
            shown = alike(box, left, SHOWN)
            around.append(shown.xyxy if shown else box)
            left = [one for one in left if one is not shown]
            self._example(item, shown)
        self._others([one for one in left if all(iou_xyxy(one.xyxy, box) < SHOWN for box in around)])
        if drawn.negative:
            self.regions += [dict(item) for item in drawn.waiting]

    def _example(self, item: Json, shown: Instance | None) -> None:
        """A drawn box under its own id: tightened where it shows an instance, a turned one always as drawn."""
        drawn = self._drawn
        if drawn.negative and str(item.get("id")) in _settled(drawn.typed.task):
            return  # it was accepted before, and is a person's since
        same = drawn.output.result_type == item.get("type")
        value = item.get("value")
        turned = isinstance(value, Mapping) and bool(value.get("rotation"))
        written: list[Region] = []
        if shown is not None and not (same and turned):
            written = self._written(shown, str(item.get("id")), f"drawn, {shown.score:.2f}")
            written = [{**one, "meta": noted(item, one["meta"]["text"])} for one in written]
        self.regions += written or [dict(item)]

    def _others(self, others: Sequence[Instance]) -> None:
        drawn, new = self._drawn, dict[str, Xyxy]()
        services = drawn.typed.services
        stored = {str(item.get("id")) for item in standing_regions(drawn.typed.task)}
        for one in others:
            if any(Placed(self._labels, one.xyxy).is_same(other) for other in self._placed):
                self._standing += 1
                continue
            if len(new) >= drawn.options.max_results:
                self._more += 1
                continue
            name = services.examples.id_of(drawn.key, one.xyxy)
            if name is None or name in new or name in stored:  # whoever changed a region keeps it
                name = secrets.token_hex(5)
            written = self._written(one, name, f"like the drawn box {one.score:.2f}")
            if written:
                self.regions += written
                new[name] = one.xyxy
        self._alike = len(new)
        services.examples.answer(drawn.key, new)

    def _written(self, one: Instance, name: str, info: str) -> list[Region]:
        drawn = self._drawn
        info = f"{info} ({drawn.typed.choices.concepts_by})"
        return write_instance(
            one, drawn.output, drawn.typed.image_name, name, self._labels, self._found.size_wh, info=[info]
        )


def _standing(typed: Typed, own: frozenset[str] = frozenset()) -> tuple[list[Placed], bool]:
    """What stands on the picture beside the examples; and whether it is unclear which annotation is open."""
    placed, unclear = standing_on(typed, own)
    return [one for one in placed if not any(map(typed.control.is_negative, one.labels))], unclear


def _box(item: Json, size_wh: tuple[int, int]) -> Xyxy:
    """A rectangle's upright hull within the picture, pixels.

    Raises:
        RegionError: it cannot be read.
    """
    value = item.get("value")
    if not isinstance(value, Mapping):
        raise RegionError("The example has no coordinates; draw it again.")
    x0, y0, x1, y1 = clip_xyxy(read_box(value, size_wh).enclosing_xyxy(), size_wh)
    if x1 - x0 < 1 or y1 - y0 < 1:
        raise RegionError("The example has no area within the picture; draw it around a whole object.")
    return x0, y0, x1, y1


def _settled(task: Json) -> set[str]:
    """Ids of regions that an answer gave their place: those carry a score."""
    results = [one.get("result") or [] for source in ("drafts", "annotations") for one in task.get(source) or []]
    items = [item for result in results for item in result if isinstance(item, Mapping)]
    return {str(item.get("id")) for item in items if item.get("score") is not None}
