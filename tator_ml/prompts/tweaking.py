"""Box → mask → box (→ class) for many boxes of one picture, in steps of a fraction of a second.

Each step is an :class:`~tator_ml.engine.messages.Ask` of a few boxes in the engine's batch lane: the same code and
the same guard as a click's, behind every click.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from label_config.interface import Interface
from tator_ml.engine.messages import Answer, Ask, Found, Prompt, Verdict
from tator_ml.images.fetch import ImageRef
from tator_ml.prompts.asking import AnswersAsks, answer_or_without_class
from tator_ml.prompts.standing import Change, StandingBox
from tator_sdk.geometry import Xyxy, iou_xyxy

STEP_SECONDS = 0.25  # aimed at; a click waits for one step at most
FIRST_STEP, LARGEST_STEP = 1, 32  # boxes; on a CPU one may take as long
TIGHT = 0.999  # IoU from which a box already stood where the mask puts it

KEPT = {
    "agrees with the drawn box": "disagreement",
    "is trusted by": "low quality",
    "is stable by": "unstable mask",
    "is consistent by": "inconsistent",
    "sees nothing": "nothing seen",
    "smaller than a pixel": "too small",
}
"""Short names of the guard's objections, by words of its sentences (``engine/refine.py``)."""


@dataclass(frozen=True)
class Tweaked:
    """What came of one box.

    Attributes:
        box: as it stands.
        before, after: its corners in pixels; the same where it is kept.
        size_wh: the picture's size.
        iou: of the two, 0..1.
        reason: why it is kept, in the guard's words; None where it moved or was tight already.
        quality: the segmenter's estimate of the mask's IoU, 0..1; None without a mask.
        label: the class that the head offers in place of the box's own; None where it offers none.
        verdict: of the head, where it was asked.
    """

    box: StandingBox
    before: Xyxy
    after: Xyxy
    size_wh: tuple[int, int]
    iou: float
    reason: str | None = None
    quality: float | None = None
    label: str | None = None
    verdict: Verdict | None = None

    @property
    def moved(self) -> bool:
        """Whether it is to stand elsewhere."""
        return self.after != self.before

    @property
    def change(self) -> Change:
        """What is to be written of its region, an offered class included."""
        if self.moved:
            return Change.moved(self.after, self.size_wh, self.label)
        return Change(None, self.label)


def kept_because(reason: str) -> tuple[str, ...]:
    """Short names of the guard's objections in a sentence of it."""
    return tuple(name for words, name in KEPT.items() if words in reason) or ("other",)


class Tweaker:
    """Tightens boxes with one project's segmenter and head; several threads may share it.

    Attributes:
        model_version: of the last answer; empty before the first.
        was_warm: whether every picture so far was ready.
        without_class: why the head is asked no more, in a sentence.
    """

    def __init__(
        self,
        engine: AnswersAsks,
        interface: Interface,
        segmenter: str | None = None,
        head: str | None = None,
        classify: bool = False,
    ) -> None:
        self.model_version = ""
        self.was_warm = True
        self.without_class: str | None = None
        self._engine = engine
        self._interface = interface
        self._segmenter = segmenter
        self._head = head
        self._classify = classify
        self._step = FIRST_STEP

    def tweak(self, ref: ImageRef, boxes: Sequence[StandingBox]) -> Iterator[list[Tweaked]]:
        """Tighten boxes of one picture, a few at a time.

        Args:
            ref: the picture.
            boxes: that stand on it.

        Yields:
            What came of the next few, in their order.

        Raises:
            EngineError, ImageError: with a sentence.
        """
        begin = 0
        while begin < len(boxes):
            some = boxes[begin : begin + self._step]
            begin += len(some)
            drawn = [box.xyxy(ref.size_wh) for box in some]
            begun = time.monotonic()
            answer = self._ask(ref.image, drawn)
            self._pace(len(some), time.monotonic() - begun, answer)
            self.model_version = answer.model_version
            self.was_warm = self.was_warm and answer.was_warm
            yield [
                self._tweaked(box, before, found, answer.size_wh)
                for box, before, found in zip(some, drawn, answer.found, strict=True)
            ]

    def _ask(self, image: str, drawn: Sequence[Xyxy]) -> Answer:
        ask = Ask(
            image=image,
            prompts=tuple(Prompt(box_xyxy=box) for box in drawn),
            classify=self._classify,
            head=self._head if self._classify else None,
            segmenter=self._segmenter,
            lane="batch",
        )
        answer, why = answer_or_without_class(self._engine, ask)
        if why:
            self.without_class, self._classify = why, False
        return answer

    def _pace(self, count: int, seconds: float, answer: Answer) -> None:
        """Let the next step take as long as is aimed at; time spent waiting for others makes steps smaller."""
        if answer.came_from != "encoded":
            wanted = int(count * STEP_SECONDS / max(seconds, 1e-3))
            self._step = min(max(wanted, 1), 2 * count, LARGEST_STEP)

    def _tweaked(self, box: StandingBox, before: Xyxy, found: Found | None, size_wh: tuple[int, int]) -> Tweaked:
        if found is None:
            return Tweaked(box, before, before, size_wh, 1.0, "the segmenter sees nothing in it")
        iou = iou_xyxy(before, found.xyxy) if found.refined else 1.0
        moved = found.refined and iou < TIGHT
        return Tweaked(
            box,
            before,
            found.xyxy if moved else before,
            size_wh,
            iou if moved else 1.0,
            None if found.refined else found.reason or "the guard holds it",
            found.quality,
            self._offered(box, found.verdict),
            found.verdict,
        )

    def _offered(self, box: StandingBox, verdict: Verdict | None) -> str | None:
        """The head's class as the configuration names it, where it differs from the box's one label."""
        if verdict is None or verdict.label is None or not box.control.labels:
            return None
        named = self._interface.find_label(box.control, verdict.label)
        return named if named and (named,) != box.labels else None
