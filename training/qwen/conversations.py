"""What is asked about a picture, and what should be answered: drawn anew at each round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tator_ml.vlm.parsing import Output
from tator_ml.vlm.prompts import Composed, PromptStyle, compose
from training.samples import Labelled, Sample


@dataclass(frozen=True)
class Conversation:
    """A question about a picture with its answer.

    Attributes:
        sample: the picture.
        asked: system and user message.
        output: whether boxes or points are asked for.
        answer: the objects to name, in the picture's pixels, in the order in which they are named.
    """

    sample: Sample
    asked: Composed
    output: Output
    answer: tuple[Labelled, ...]


@dataclass(frozen=True)
class Drawing:
    """How conversations are drawn.

    Attributes:
        style: system prompt, template, image type and context.
        points: share that asks for points.
        negatives: share of those about one class or some that asks for absent ones alone, where there are any.
        noise: share of the system message's characters that are dropped.
        most: objects in one answer.
    """

    style: PromptStyle
    points: float = 0.5
    negatives: float = 0.2
    noise: float = 0.05
    most: int = 200


def draw(sample: Sample, classes: Sequence[str], drawing: Drawing, rng: np.random.Generator) -> Conversation:
    """Draw a question: boxes or points; of all classes, one, or some, a third each; sometimes of absent ones."""
    output: Output = "point" if rng.random() < drawing.points else "bbox"
    asked = _classes(sample, classes, drawing, rng)
    style = replace(drawing.style, system_prompt=with_noise(drawing.style.system_prompt, drawing.noise, rng))
    wanted = [one for one in sample.objects if one.label in asked]
    answer = in_order(balanced(wanted, drawing.most, rng))
    return Conversation(sample, compose("", asked, style, output), output, answer)


def fixed(sample: Sample, classes: Sequence[str], style: PromptStyle, most: int) -> Conversation:
    """The question by which a model is measured: the boxes of all classes, nothing drawn at random."""
    wanted = balanced([one for one in sample.objects if one.label in classes], most, np.random.default_rng(0))
    return Conversation(sample, compose("", classes, style, "bbox"), "bbox", in_order(wanted))


def balanced(objects: Sequence[Labelled], most: int, rng: np.random.Generator) -> list[Labelled]:
    """At most so many objects: one of each class in turn until there are enough, so that no class crowds others out."""
    if len(objects) <= most:
        return list(objects)
    of_class: dict[str, list[Labelled]] = {}
    for index in rng.permutation(len(objects)):
        of_class.setdefault(objects[index].label, []).append(objects[index])
    chosen: list[Labelled] = []
    for turn in range(max(len(found) for found in of_class.values())):
        for found in of_class.values():
            if turn < len(found) and len(chosen) < most:
                chosen.append(found[turn])
    return chosen


def in_order(objects: Sequence[Labelled]) -> tuple[Labelled, ...]:
    """From top to bottom, then from left to right: an order that can be seen in the picture can be learned."""
    return tuple(sorted(objects, key=lambda one: (one.box[1], one.box[0], one.box[3], one.box[2], one.label)))


def with_noise(text: str, share: float, rng: np.random.Generator) -> str:
    """The text without a random share of its characters, so that a model does not hang on its exact words."""
    if not share:
        return text
    return "".join(one for one, draw in zip(text, rng.random(len(text)), strict=True) if draw >= share)


def _classes(sample: Sample, classes: Sequence[str], drawing: Drawing, rng: np.random.Generator) -> list[str]:
    """The classes of a question, in the data set's order."""
    kind = rng.integers(3)
    if kind == 0 or len(classes) == 1:
        return list(classes)
    here = {one.label for one in sample.objects}
    present, absent = ([name for name in classes if (name in here) == there] for there in (True, False))
    pool = list(classes)
    if absent and (not present or rng.random() < drawing.negatives):
        pool, present = absent, []
    count = 1 if kind == 1 else int(rng.integers(min(2, len(pool)), len(pool) + 1))
    # what is there is asked for at least once, else most questions about many classes would be negatives
    chosen = {present[int(rng.integers(len(present)))]} if present else set()
    others = [name for name in pool if name not in chosen]
    chosen |= {others[index] for index in rng.permutation(len(others))[: count - len(chosen)]}
    return [name for name in classes if name in chosen]
