"""Words → regions of one picture: what a prompt field, kept words and a job over a project share.

The words become a prompt in the active model's style, its detections get the configuration's labels, and boxes or
points go through the segmenter and the class head as the mode asks.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from label_config.interface import Control, Interface
from label_config.word_options import MOST_RESULTS, WordOptions
from tator_ml.asking import AnswersAsks, answer_or_without_class
from tator_ml.assists import Assist, AssistError, choose_output, needs_mask, write_regions
from tator_ml.engine.detections import DetectAsk, Detected
from tator_ml.engine.messages import Ask, Found, Prompt
from tator_ml.found_objects import Named, Placed, named, vocabulary
from tator_ml.images.fetch import ImageRef
from tator_ml.projects import ProjectChoices
from tator_ml.vlm.prompts import PromptStyle, compose
from tator_ml.vlm.registry import BASE, QwenEntry
from tator_sdk.regions import Region

STEP = 4  # objects in one question to the segmenter: clicks come between
SEGMENTING_SHARE = 0.15  # of the time, kept for the segmenter


class AnswersWords(AnswersAsks, Protocol):
    """What this needs of an engine."""

    def detect(self, ask: DetectAsk) -> Detected:
        """Ask a vision-language model."""
        ...


@dataclass(frozen=True)
class Manner:
    """How words are answered on one image tag of a project.

    Attributes:
        interface: of the project.
        output: the tag that takes the answer.
        image_name: name of the image tag.
        options: mode, most results, and what the prompt's template is given.
        model: that is asked.
        segmenter: name of the one that follows; None for the engine's own.
        head: version of the class head; None for the engine's own.
        classify: whether the head is asked.
        agreement: least IoU of a refined rotated box with the drawn one.
    """

    interface: Interface
    output: Control
    image_name: str
    options: WordOptions
    model: QwenEntry
    segmenter: str | None = None
    head: str | None = None
    classify: bool = False
    agreement: float = 0.6

    @classmethod
    def of(
        cls,
        interface: Interface,
        prompt: Control,
        image_name: str,
        options: WordOptions,
        choices: ProjectChoices,
        model: QwenEntry,
        agreement: float,
    ) -> Manner:
        """What tag and project say.

        Raises:
            AssistError: no tag can take the answer; the sentence says what to add.
        """
        wanted = "box" if options.mode == "bbox" else choices.output
        output = choose_output(interface, prompt, image_name, wanted)
        if output.labels_key:
            raise AssistError(
                f"The labels of '{output.name}' come with each task, so words cannot be matched with them; write them "
                "into the labelling configuration."
            )
        chosen = prompt.assists
        if chosen is None and choices.assists is not None:
            chosen = frozenset(choices.assists)
        classify = chosen is None or "classify" in chosen
        return cls(interface, output, image_name, options, model, choices.segmenter, choices.head, classify, agreement)

    @property
    def style(self) -> PromptStyle:
        """How the model is asked: a tuned one always as it was trained, a published one as tag and request say."""
        own, options = self.model.style, self.options
        image_type, context = options.image_type or own.image_type, options.extra_context or own.extra_context
        if self.model.metadata is None:
            return replace(own, image_type=image_type, extra_context=context)
        return replace(own, image_type=own.image_type or image_type, extra_context=own.extra_context or context)

    @property
    def model_name(self) -> str:
        """The model's name, short enough for the strip."""
        return short_name(self.model)


@dataclass
class Worded:
    """What came of words on one picture.

    Attributes:
        regions: the answer.
        counts: objects in it by label.
        unmatched: names the model gave that are no labels, with how often.
        standing: objects left out because they stood on the picture already, and
        doubled: because another of the answer is the same, and
        more: because the answer has as many as it may.
        late: because the time was up.
        unseen: places at which the segmenter sees nothing.
        placeless: objects with a point where boxes were asked for.
        detected: what the model answered.
        items: what it was asked for; None where the words were taken as they are.
        model_version: names model, segmenter and head, as far as they took part.
        was_warm: whether the segmenter's picture was ready.
        without_class: why the head was not asked, in a sentence.
    """

    detected: Detected
    items: tuple[str, ...] | None
    model_version: str
    regions: list[Region] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    unmatched: Counter[str] = field(default_factory=Counter)
    standing: int = 0
    doubled: int = 0
    more: int = 0
    late: int = 0
    unseen: int = 0
    placeless: int = 0
    was_warm: bool = True
    without_class: str | None = None

    @property
    def left_out(self) -> list[str]:
        """What is not in the answer and why, in words."""
        said = []
        if self.unmatched:
            names = ", ".join(f"'{name[:40]}'" for name, _ in self.unmatched.most_common(3))
            names += ", …" if len(self.unmatched) > 3 else ""
            said.append(f"{self.unmatched.total()} named {names}, which is no label here")
        if self.standing:
            said.append(f"{self.standing} stood already")
        if self.doubled:
            said.append(f"{self.doubled} twice the same")
        if self.unseen:
            said.append(f"{self.unseen} where the segmenter sees nothing")
        if self.placeless:
            said.append(f"{self.placeless} without a box")
        if self.more:
            said.append(f"{self.more} more than model_max_results allows")
        if self.late:
            said.append(f"{self.late} left when the time was up")
        if self.detected.ended == "time":
            said.append("the time was up before the model had ended")
        elif self.detected.ended == "length":
            said.append("the answer was cut at its greatest length")
        elif not self.detected.complete:
            said += [problem.rstrip(".") for problem in self.detected.problems[:1]]
        if self.without_class:
            said.append(f"without classes: {self.without_class}")
        return said


class WordFinder:
    """Asks model, segmenter and head about one picture.

    Attributes:
        doing: the current step, for the strip; may be read by another thread.
    """

    def __init__(self, engine: AnswersWords, manner: Manner) -> None:
        self.doing = f"asking {manner.model_name}"
        self._engine = engine
        self._manner = manner

    def find(
        self,
        ref: ImageRef,
        words: str,
        seconds: float,
        standing: Sequence[Placed] = (),
        lane: str = "click",
        task: str = "",
        prompt_ids: tuple[str, ...] = (),
        strict: bool = True,
    ) -> Worded:
        """Find what the words name.

        Args:
            ref: the picture.
            words: as typed; empty for all classes.
            seconds: the most that the model and the segmenter may take, together.
            standing: objects that are on the picture already.
            lane: ``click`` where somebody waits, ``batch`` for a job.
            task: in whose place a newer question comes; empty for none.
            prompt_ids: of the question.
            strict: an answer that cannot be read is an error; else it has no objects.

        Raises:
            NothingToLookFor: neither words nor classes.
            Superseded: a newer question of the task is answered in its place.
            EngineError, ImageError: with a sentence.
            AssistError: the model's answer cannot be read.
        """
        manner, options = self._manner, self._manner.options
        composed = compose(
            words, vocabulary(manner.output), manner.style, "point" if options.mode == "point" else "bbox"
        )
        segments = options.mode != "bbox" or manner.classify
        begun = time.monotonic()
        detected = self._engine.detect(
            DetectAsk(
                image=ref.image,
                system=composed.system,
                user=composed.user,
                output="point" if options.mode == "point" else "bbox",
                model=None if manner.model.id == BASE else manner.model.id,
                max_results=MOST_RESULTS,  # cut after matching: what is no label takes nobody's place
                seconds=seconds * (1 - SEGMENTING_SHARE) if segments else seconds,
                lane="batch" if lane == "batch" else "click",
                task=task,
                prompt_ids=prompt_ids,
            )
        )
        if strict and not detected.found and not detected.complete and detected.ended == "end":
            shown = " ".join(detected.text.split())[:80]
            raise AssistError(f"{manner.model_name} answered nothing that can be read ('{shown}'); ask in other words.")
        worded = Worded(detected, composed.items, detected.model_version)
        naming = named(detected.found, manner.interface, manner.output, composed.items)
        worded.unmatched = naming.unmatched
        self._fill(worded, ref, naming.named, standing, lane, begun + seconds)
        return worded

    def _fill(
        self, worded: Worded, ref: ImageRef, found: Sequence[Named], standing: Sequence[Placed], lane: str, until: float
    ) -> None:
        """Regions of what was named, until there are as many as may be or the time is up."""
        if self._manner.options.mode == "bbox":  # a segmenter would take a point as well
            worded.placeless = sum(one.detection.xyxy is None for one in found)
            found = [one for one in found if one.detection.xyxy is not None]
        taken: list[Placed] = []
        most = self._manner.options.max_results
        for begin in range(0, len(found), STEP):
            part = found[begin : begin + STEP]
            if len(taken) >= most:
                worded.more += len(part)
                continue
            if begin and time.monotonic() > until:
                worded.late += len(part)
                continue
            if self._manner.options.mode != "bbox":
                self.doing = f"segmenting {begin + len(part)} of {len(found)}"
            for placed, regions in self._placed(worded, ref, part, lane):
                if any(placed.is_same(other) for other in standing):
                    worded.standing += 1
                elif any(placed.is_same(other) for other in taken):
                    worded.doubled += 1
                elif len(taken) >= most:
                    worded.more += 1
                else:
                    taken.append(placed)
                    worded.regions += regions
                    worded.counts[", ".join(placed.labels) or "object"] += 1

    def _placed(
        self, worded: Worded, ref: ImageRef, part: Sequence[Named], lane: str
    ) -> Iterator[tuple[Placed, list[Region]]]:
        """Each object with its regions."""
        manner = self._manner
        assists = [self._assist(one) for one in part]
        sees = manner.options.mode != "bbox"
        founds: Sequence[Found | None]
        if sees or manner.classify:
            labels = {one.labels for one in part}
            ask = Ask(
                image=ref.image,
                prompts=tuple(assist.prompt for assist in assists),
                refine=sees,
                classify=manner.classify,
                masks=any(needs_mask(assist) for assist in assists),
                head=manner.head,
                segmenter=manner.segmenter,
                label=next(iter(part[0].labels), None) if len(labels) == 1 else None,
                lane="batch" if lane == "batch" else "click",
            )
            answer, why = answer_or_without_class(self._engine, ask)
            worded.without_class = worded.without_class or why
            worded.was_warm = worded.was_warm and answer.was_warm
            segmenter, _, head = answer.model_version.rpartition("+")
            parts = (worded.detected.model_version, segmenter if sees else "", head if manner.classify else "")
            worded.model_version = "+".join(part for part in parts if part)
            founds = answer.found
        else:
            boxes = [one.detection.xyxy for one in part]
            founds = [None if box is None else Found(box, refined=False) for box in boxes]
        for one, assist, found in zip(part, assists, founds, strict=True):
            if found is None:
                worded.unseen += 1
                continue
            regions = write_regions(assist, found, manner.interface, ref.size_wh, manner.agreement)
            if one.detection.label:
                said = f"“{one.detection.label}” ({manner.model_name})"
                regions = [{**each, "meta": {"text": [*_info(each), said]}} for each in regions]
            yield Placed(_labels(assist, found, manner), found.xyxy), regions

    def _assist(self, one: Named) -> Assist:
        box, point = one.detection.xyxy, one.detection.point
        prompt = Prompt(box_xyxy=box) if box is not None else Prompt((point,), (True,)) if point else Prompt()
        return Assist(
            prompt=prompt,
            region_id=secrets.token_hex(5),
            output=self._manner.output,
            image_name=self._manner.image_name,
            labels=one.labels,
            refine=self._manner.options.mode != "bbox",
            classify=self._manner.classify,
            oriented=bool(self._manner.output.oriented_for(next(iter(one.labels), None))),
        )


def short_name(model: QwenEntry) -> str:
    """A model's name without its organisation or folder."""
    return (model.label or model.id).rstrip("/").rpartition("/")[2]


def _labels(assist: Assist, found: Found, manner: Manner) -> tuple[str, ...]:
    verdict = found.verdict
    label = manner.interface.find_label(assist.output, verdict.label) if verdict and verdict.label else None
    return (label,) if label else assist.labels


def _info(region: Region) -> list[str]:
    return list((region.get("meta") or {}).get("text") or [])
