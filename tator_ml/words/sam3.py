"""Phrases → regions of one picture, found by SAM 3: all instances of what each phrase names."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

from label_config.concept_options import MOST_RESULTS, ConceptOptions
from label_config.interface import Control, Interface
from tator_ml.engine.concepts import Concept, ConceptAsk, ConceptsFound, Instance
from tator_ml.engine.messages import Ask, Prompt, Verdict
from tator_ml.images.fetch import ImageRef
from tator_ml.projects import ProjectChoices
from tator_ml.prompts.asking import AnswersAsks, answer_or_without_class
from tator_ml.prompts.assists import takes_masks
from tator_ml.words.finding import Worded, fill
from tator_ml.words.found_objects import Placed, output_of_words, wants_classes
from tator_ml.words.instances import distinct, write_instance
from tator_ml.words.phrases import Phrase, phrases_of
from tator_sdk.regions import Region

STEP = 8  # objects in one question to the class head: clicks come between
CLASSIFYING_SHARE = 0.1  # of the time, kept for the class head
MOST_SYNONYMS = 4  # phrases of one object, for which there is to be room in the model's answer


class FindsConcepts(AnswersAsks, Protocol):
    """What this needs of an engine."""

    def find_concepts(self, ask: ConceptAsk) -> ConceptsFound:
        """Find every instance of some concepts on a picture."""
        ...


@dataclass(frozen=True)
class ConceptManner:
    """How SAM 3 answers phrases on one image tag of a project.

    Attributes:
        interface: of the project.
        output: the tag that takes the answer.
        image_name: name of the image tag.
        options: threshold and most results.
        model: name of the SAM 3 that is asked: ``sam3``, or a tuned run's id.
        head: version of the class head; None for the engine's own.
        classify: whether the head is asked.
    """

    interface: Interface
    output: Control
    image_name: str
    options: ConceptOptions
    model: str
    head: str | None = None
    classify: bool = False

    @classmethod
    def of(
        cls,
        interface: Interface,
        prompt: Control,
        image_name: str,
        options: ConceptOptions,
        choices: ProjectChoices,
        wanted: str | None = None,
    ) -> ConceptManner:
        """What tag and project say.

        Args:
            interface: of the project.
            prompt: the prompt field.
            image_name: name of the image tag.
            options: of the field, or of whoever asks.
            choices: of the project.
            wanted: ``box``, ``polygon`` or ``mask``, in place of the project's output.

        Raises:
            AssistError: no tag can take the answer; the sentence says what to add.
        """
        output = output_of_words(interface, prompt, image_name, wanted or choices.output)
        classify = wants_classes(prompt, choices)
        return cls(interface, output, image_name, options, choices.concepts_by, choices.head, classify)

    @property
    def model_id(self) -> str:
        """Name of the SAM 3 that is asked."""
        return self.model

    @property
    def model_name(self) -> str:
        """The same, for the strip."""
        return self.model

    @property
    def keep(self) -> bool:
        """Whether phrases that were typed are asked again on the next pictures."""
        return self.options.keep_prompt

    @property
    def depends(self) -> dict[str, Any]:
        """What the answer depends on beside phrases and model."""
        about = asdict(self.options)
        return {"mode": "sam3", **{name: about[name] for name in ("threshold", "max_results", "keep_prompt")}}

    @property
    def verb(self) -> str:
        """Of ``tator prelabel``."""
        return "sam3"

    def version(self, engine: Any) -> str:
        """What takes part in an answer: SAM 3 and the class head."""
        head = engine.status().version_with(self.head, self.model).rpartition("+")[2] if self.classify else ""
        return "+".join(part for part in (engine.segmenter_version(self.model), head) if part)

    def finder(self, engine: FindsConcepts) -> ConceptFinder:
        """One that asks an engine."""
        return ConceptFinder(engine, self)


@dataclass(frozen=True, eq=False)
class _Named:
    """An instance with what the head says of it."""

    instance: Instance
    phrase: Phrase
    verdict: Verdict | None = None


class ConceptFinder:
    """Asks SAM 3, and the class head where it is wanted, about one picture.

    Attributes:
        doing: the current step, for the strip; may be read by another thread.
    """

    def __init__(self, engine: FindsConcepts, manner: ConceptManner) -> None:
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
        strict: bool = True,
    ) -> Worded:
        """Find every instance of what the words name, each object once.

        Args:
            ref: the picture.
            words: as typed; empty for all classes.
            seconds: the most that model and head may take, together.
            standing: objects that are on the picture already.
            lane: ``click`` where somebody waits, ``batch`` for a job.
            task: in whose place a newer question comes; empty for none.
            strict: without meaning here, as every answer can be read.

        Raises:
            AssistError: what is typed fits no label.
            Superseded: a newer question of the task is answered in its place.
            EngineError, ImageError: with a sentence.
        """
        manner, begun = self._manner, time.monotonic()
        phrases = phrases_of(words, manner.interface, manner.output)
        most = manner.options.max_results * min(len(phrases), MOST_SYNONYMS) + len(standing)
        found = self._engine.find_concepts(
            ConceptAsk(
                image=ref.image,
                concepts=tuple(Concept(phrase.text) for phrase in phrases),
                segmenter=manner.model,
                threshold=manner.options.threshold,
                limit=min(most, MOST_RESULTS),  # cut here: what stands already takes nobody's place
                masks=takes_masks(manner.output),
                lane="batch" if lane == "batch" else "click",
                seconds=seconds * (1 - CLASSIFYING_SHARE) if manner.classify else seconds,
                task=task,
            )
        )
        worded = Worded(found.segmenter, more=found.more, was_warm=found.was_warm, seconds=found.seconds)
        named = [_Named(one, phrases[one.concept]) for one in distinct(found.found)]
        self._fill(worded, ref, named, standing, lane, begun + seconds)
        return worded

    def _fill(
        self,
        worded: Worded,
        ref: ImageRef,
        found: Sequence[_Named],
        standing: Sequence[Placed],
        lane: str,
        until: float,
    ) -> None:
        """Regions of what was found, until there are as many as may be or the time is up."""

        def place(part: Sequence[_Named]) -> Iterator[tuple[Placed, Callable[[], list[Region]]]]:
            for one, labels in self._labelled(worded, ref, part, lane):
                yield Placed(labels, one.instance.xyxy), partial(self._regions, one, labels, ref.size_wh)

        fill(worded, found, place, standing=standing, most=self._manner.options.max_results, step=STEP, until=until)

    def _labelled(
        self, worded: Worded, ref: ImageRef, part: Sequence[_Named], lane: str
    ) -> Iterator[tuple[_Named, tuple[str, ...]]]:
        """Each object with its labels: the phrase's, unless the class head is sure of another."""
        manner = self._manner
        for one in self._classified(worded, ref, part, lane) if manner.classify else part:
            sure = one.verdict.label if one.verdict else None
            label = manner.interface.find_label(manner.output, sure) if sure else None
            chosen = label or one.phrase.label
            yield one, (chosen,) if chosen else ()

    def _classified(self, worded: Worded, ref: ImageRef, part: Sequence[_Named], lane: str) -> Iterator[_Named]:
        manner = self._manner
        labels = {one.phrase.label for one in part}
        ask = Ask(
            image=ref.image,
            prompts=tuple(Prompt(box_xyxy=one.instance.xyxy) for one in part),
            refine=False,
            classify=True,
            head=manner.head,
            segmenter=manner.model,
            label=part[0].phrase.label if len(labels) == 1 else None,
            lane="batch" if lane == "batch" else "click",
        )
        answer, why = answer_or_without_class(self._engine, ask)
        worded.without_class = worded.without_class or why
        if why is None and "+" not in worded.model_version:
            worded.model_version += f"+{answer.model_version.rpartition('+')[2]}"
        for one, found in zip(part, answer.found, strict=True):
            yield _Named(one.instance, one.phrase, found.verdict if found else None)

    def _regions(self, one: _Named, labels: tuple[str, ...], size_wh: tuple[int, int]) -> list[Region]:
        manner, score = self._manner, one.instance.score
        said = f"“{one.phrase.text}” ({manner.model_name}) {score:.2f}"
        info = [" · ".join(f"{name} {share:.2f}" for name, share in one.verdict.top)] if one.verdict else []
        if one.verdict and one.verdict.label:
            score = one.verdict.probability
        region_id = secrets.token_hex(5)  # an accepted object is never replaced by a later answer
        return write_instance(
            one.instance, manner.output, manner.image_name, region_id, labels, size_wh, score=score, info=[*info, said]
        )
