"""Words → regions of one picture, found by a Qwen-VL.

The words become a prompt in the active model's style, its detections get the configuration's labels, and boxes or
points go through the segmenter and the class head as the mode asks.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Protocol

from label_config.interface import Control, Interface
from label_config.word_options import MOST_RESULTS, WordOptions
from tator_ml.engine.detections import DetectAsk, Detected
from tator_ml.engine.messages import Ask, Found, Prompt
from tator_ml.images.fetch import ImageRef
from tator_ml.projects import ProjectChoices
from tator_ml.prompts.asking import AnswersAsks, answer_or_without_class
from tator_ml.prompts.assists import Assist, AssistError, needs_mask, write_regions
from tator_ml.runs import BASE
from tator_ml.vlm.prompts import PromptStyle, compose
from tator_ml.vlm.registry import QwenEntry
from tator_ml.words.finding import Worded, fill
from tator_ml.words.found_objects import Named, Placed, named, output_of_words, vocabulary, wants_classes
from tator_sdk.regions import Region

STEP = 4  # objects in one question to the segmenter: clicks come between
SEGMENTING_SHARE = 0.15  # of the time, kept for the segmenter


class AnswersWords(AnswersAsks, Protocol):
    """What this needs of an engine."""

    def detect(self, ask: DetectAsk) -> Detected:
        """Ask a vision-language model."""
        ...


@dataclass(frozen=True)
class QwenManner:
    """How a Qwen-VL answers words on one image tag of a project.

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
    ) -> QwenManner:
        """What tag and project say.

        Raises:
            AssistError: no tag can take the answer; the sentence says what to add.
        """
        wanted = "box" if options.mode == "bbox" else choices.output
        output = output_of_words(interface, prompt, image_name, wanted)
        classify = wants_classes(prompt, choices)
        return cls(interface, output, image_name, options, model, choices.clicks_by, choices.head, classify, agreement)

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

    @property
    def model_id(self) -> str:
        """Id of the model that is asked."""
        return self.model.id

    @property
    def keep(self) -> bool:
        """Whether words that were typed are asked again on the next pictures."""
        return self.options.keep_prompt

    @property
    def depends(self) -> dict[str, Any]:
        """What the answer depends on beside words and model."""
        return asdict(self.options)

    @property
    def verb(self) -> str:
        """Of ``tator prelabel``."""
        return "qwen"

    def version(self, engine: Any) -> str:
        """What takes part in an answer: model, segmenter, head."""
        parts = [short_name(self.model) if self.model.metadata is None else self.model.id]
        if self.options.mode != "bbox":
            parts.append(engine.segmenter_version(self.segmenter))
        if self.classify:
            parts.append(engine.status().version_with(self.head, self.segmenter).rpartition("+")[2])
        return "+".join(parts)

    def finder(self, engine: AnswersWords) -> WordFinder:
        """One that asks an engine."""
        return WordFinder(engine, self)


class WordFinder:
    """Asks model, segmenter and head about one picture.

    Attributes:
        doing: the current step, for the strip; may be read by another thread.
    """

    def __init__(self, engine: AnswersWords, manner: QwenManner) -> None:
        self.doing = f"asking {manner.model_name}"
        self._engine = engine
        self._manner = manner
        self._model_version = ""

    def find(
        self,
        ref: ImageRef,
        words: str,
        seconds: float,
        standing: Sequence[Placed] = (),
        lane: str = "click",
        task: str = "",
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
                model=None if manner.model.id == BASE else manner.model.id,
                max_results=MOST_RESULTS,  # cut after matching: what is no label takes nobody's place
                seconds=seconds * (1 - SEGMENTING_SHARE) if segments else seconds,
                lane="batch" if lane == "batch" else "click",
                task=task,
            )
        )
        if strict and not detected.found and not detected.complete and detected.ended == "end":
            shown = " ".join(detected.text.split())[:80]
            raise AssistError(f"{manner.model_name} answered nothing that can be read ('{shown}'); ask in other words.")
        worded = _worded(detected)
        naming = named(detected.found, manner.interface, manner.output, composed.items)
        worded.unmatched = naming.unmatched
        self._model_version = detected.model_version
        self._fill(worded, ref, naming.named, standing, lane, begun + seconds)
        return worded

    def _fill(
        self, worded: Worded, ref: ImageRef, found: Sequence[Named], standing: Sequence[Placed], lane: str, until: float
    ) -> None:
        """Regions of what was named, until there are as many as may be or the time is up."""
        boxes_alone = self._manner.options.mode == "bbox"
        if boxes_alone:  # a segmenter would take a point as well
            worded.placeless = sum(one.detection.xyxy is None for one in found)
            found = [one for one in found if one.detection.xyxy is not None]

        def tell(done: int, total: int) -> None:
            if not boxes_alone:
                self.doing = f"segmenting {done} of {total}"

        fill(
            worded, found, lambda part: self._placed(worded, ref, part, lane), standing=standing,
            most=self._manner.options.max_results, step=STEP, until=until, tell=tell,
        )  # fmt: skip

    def _placed(
        self, worded: Worded, ref: ImageRef, part: Sequence[Named], lane: str
    ) -> Iterator[tuple[Placed, Callable[[], list[Region]]]]:
        """Each object that is seen, with what writes its regions."""
        manner = self._manner
        assists = [self._assist(one) for one in part]
        for one, assist, found in zip(part, assists, self._founds(worded, ref, part, assists, lane), strict=True):
            if found is None:
                worded.unseen += 1
                continue
            yield Placed(_labels(assist, found, manner), found.xyxy), partial(self._written, ref, one, assist, found)

    def _founds(
        self, worded: Worded, ref: ImageRef, part: Sequence[Named], assists: Sequence[Assist], lane: str
    ) -> Sequence[Found | None]:
        """What segmenter and head make of some objects."""
        manner = self._manner
        sees = manner.options.mode != "bbox"
        if not (sees or manner.classify):
            boxes = [one.detection.xyxy for one in part]
            return [None if box is None else Found(box, refined=False) for box in boxes]
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
        parts = (self._model_version, segmenter if sees else "", head if manner.classify else "")
        worded.model_version = "+".join(part for part in parts if part)
        return answer.found

    def _written(self, ref: ImageRef, one: Named, assist: Assist, found: Found) -> list[Region]:
        manner = self._manner
        regions = write_regions(assist, found, manner.interface, ref.size_wh, manner.agreement)
        if one.detection.label:
            said = f"“{one.detection.label}” ({manner.model_name})"
            regions = [{**each, "meta": {"text": [*_info(each), said]}} for each in regions]
        return regions

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


def _worded(detected: Detected) -> Worded:
    """A model's answer, before anything of it has a place."""
    problems: list[str] = []
    if detected.ended == "time":
        problems = ["the time was up before the model had ended"]
    elif detected.ended == "length":
        problems = ["the answer was cut at its greatest length"]
    elif not detected.complete:
        problems = [problem.rstrip(".") for problem in detected.problems[:1]]
    cut = detected.ended in ("time", "length")
    return Worded(
        detected.model_version,
        problems=tuple(problems),
        tokens=detected.tokens,
        seconds=detected.seconds,
        cut=cut,
        garbled=not (cut or detected.complete or detected.found),
    )


def _labels(assist: Assist, found: Found, manner: QwenManner) -> tuple[str, ...]:
    verdict = found.verdict
    label = manner.interface.find_label(assist.output, verdict.label) if verdict and verdict.label else None
    return (label,) if label else assist.labels


def _info(region: Region) -> list[str]:
    return list((region.get("meta") or {}).get("text") or [])
