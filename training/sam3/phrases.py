"""By which phrases a class is asked for, and what is asked of a picture.

A class may have several phrases, and a phrase may name several classes ("vehicle" for cars and buses): what answers it
are the objects of all of them. In training any of a class's phrases is drawn; its first one measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from tator_ml.words.phrases import as_phrase
from tator_sdk.errors import TatorError
from tator_sdk.geometry import Xyxy
from tator_sdk.sam3_request import Sam3Training
from training.samples import Labelled, Sample, Samples

T = TypeVar("T")

VISUAL = "visual"
"""What the published processor says where exemplars alone are shown."""
MOST_EXEMPLARS = 3
JITTER = 0.1
"""Standard deviation of an exemplar's edges, by its sides: nobody draws exactly."""

Phrases = Mapping[str, tuple[str, ...]]
"""Of each class, the first one for measuring."""


class PhraseError(TatorError):
    """A phrase belongs to no class; the message names it."""


@dataclass(frozen=True, eq=False)
class Question:
    """One thing to be found on a picture.

    Attributes:
        phrase: that names it.
        objects: that are it; none for a phrase that is asked in vain.
        exemplars: boxes that are shown, in pixels; none where the phrase alone asks.
        negatives: boxes of what is not meant.
    """

    phrase: str
    objects: tuple[Labelled, ...]
    exemplars: tuple[Xyxy, ...] = ()
    negatives: tuple[Xyxy, ...] = ()


def phrases_of(samples: Samples, request: Sam3Training) -> dict[str, tuple[str, ...]]:
    """The phrases of each class: those of the configuration first, as in service, its name, and those of the request.

    Raises:
        PhraseError: the request has one for a class that is not there.
    """
    asked: dict[str, list[str]] = {}
    for one in request.phrases:
        name, _, phrase = (part.strip() for part in one.partition("="))
        if name not in samples.classes:
            raise PhraseError(
                f"--phrases {one!r} is for no class of the data set; its classes are {', '.join(samples.classes)}."
            )
        asked.setdefault(name, []).append(phrase)
    return {
        name: tuple(dict.fromkeys(map(as_phrase, [*samples.names.get(name, ()), name, *asked.get(name, [])])))
        for name in samples.classes
    }


def draw(sample: Sample, phrases: Phrases, request: Sam3Training, rng: np.random.Generator) -> tuple[Question, ...]:
    """What is asked of a picture in training: each present class by one of its phrases, and phrases in vain.

    Args:
        sample: the picture.
        phrases: of all classes.
        request: how many in vain, how many in all, how many by exemplars.
        rng: draws.
    """
    present = [name for name in phrases if any(one.label == name for one in sample.objects)]
    said = list(dict.fromkeys(str(rng.choice(phrases[name])) for name in _some(present, request.most_questions, rng)))
    here = {phrase for name in present for phrase in phrases[name]}
    absent = sorted({phrase for name in phrases for phrase in phrases[name]} - here)
    wanted = request.negatives * max(len(said), 1)
    count = int(wanted) + int(rng.random() < wanted % 1)
    if not said:
        count = max(count, 1)  # else there would be nothing to ask of it
    count = min(count, request.most_questions - len(said))
    questions = [_shown(ask(sample, phrase, phrases), sample, request.exemplars, rng) for phrase in said]
    return (*questions, *(Question(phrase, ()) for phrase in _some(absent, count, rng)))


def ask(sample: Sample, phrase: str, phrases: Phrases) -> Question:
    """A phrase with the objects of a picture that answer it: those of every class that has it."""
    named = {name for name, some in phrases.items() if phrase in some}
    return Question(phrase, tuple(one for one in sample.objects if one.label in named))


def _shown(question: Question, sample: Sample, share: float, rng: np.random.Generator) -> Question:
    """The question with exemplars in the phrase's place, in a share of the cases."""
    if not share or rng.random() >= share or not question.objects:
        return question
    shown = _some(question.objects, int(rng.integers(1, MOST_EXEMPLARS + 1)), rng)
    others = [one for one in sample.objects if one not in question.objects]
    against = _some(others, int(rng.integers(0, 2)), rng)
    boxes, negatives = ([_jittered(one.box, rng) for one in some] for some in (shown, against))
    return Question(VISUAL, question.objects, tuple(boxes), tuple(negatives))


def _jittered(box: Xyxy, rng: np.random.Generator) -> Xyxy:
    sides = np.array([box[2] - box[0], box[3] - box[1]] * 2)
    x0, y0, x1, y1 = (np.array(box) + np.clip(rng.normal(0, JITTER, 4), -0.2, 0.2) * sides).tolist()
    return x0, y0, x1, y1


def _some(of: Sequence[T], count: int, rng: np.random.Generator) -> list[T]:
    chosen = rng.permutation(len(of))[: max(count, 0)]
    return [of[index] for index in sorted(chosen.tolist())]
