"""What was typed → phrases that SAM 3 is asked for, each with the label of what it finds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from label_config.interface import Control, Interface
from tator_ml.engine.concepts import MOST_CONCEPTS
from tator_ml.prompts.assists import AssistError

LONGEST = 100
"""Letters of a phrase; the model reads some thirty tokens."""

_BREAK = re.compile(r"[,;\n]")


@dataclass(frozen=True)
class Phrase:
    """One phrase.

    Attributes:
        text: as the model is asked.
        label: of what it finds; None where the tag has no labels.
    """

    text: str
    label: str | None


def phrases_of(words: str, interface: Interface, output: Control) -> tuple[Phrase, ...]:
    """Understand what was typed.

    Phrases are separated by commas, semicolons and line breaks. One that names a label, or is among its
    ``predicted_values``, gives that label; ``Car: red car`` gives ``Car`` to whatever ``red car`` finds; any phrase
    gives the label of a tag that has only one.

    Args:
        words: as typed; empty for all classes, each by its name and by each of its ``predicted_values``.
        interface: knows the labels.
        output: the tag that is to hold what is found.

    Raises:
        AssistError: a phrase fits no label, or there are none or too many; the sentence says what to write.
    """
    named = _typed(words, interface, output) if words.strip() else _of_classes(output)
    phrases: dict[str, Phrase] = {}
    for one in named:
        phrases.setdefault(one.text.lower(), one)
    if not phrases:
        raise AssistError("Type what to find, such as 'red car': the labelling configuration has no classes.")
    if len(phrases) > MOST_CONCEPTS:
        raise AssistError(f"{len(phrases)} phrases are more than {MOST_CONCEPTS}: type those that matter.")
    return tuple(phrases.values())


def as_phrase(name: str) -> str:
    """A class's name as the model is asked for it."""
    return " ".join(name.replace("_", " ").split())


def _of_classes(output: Control) -> Iterator[Phrase]:
    classes = set(output.classes)
    for label in output.labels:
        if label.value in classes:
            for name in (label.value, *label.predicted_values):
                yield Phrase(as_phrase(name), label.value)


def _typed(words: str, interface: Interface, output: Control) -> Iterator[Phrase]:
    for part in _BREAK.split(words):
        if phrase := " ".join(part.split()):
            yield _phrase(phrase, interface, output)


def _phrase(written: str, interface: Interface, output: Control) -> Phrase:
    if len(written) > LONGEST:
        raise AssistError(f"'{written[:40]}…' is too long: a phrase is a few words, such as 'red car'.")
    if not output.labels:
        return Phrase(as_phrase(written), None)
    if label := interface.find_label(output, written):
        return Phrase(as_phrase(written), label)
    before, colon, behind = (part.strip() for part in written.partition(":"))
    if colon and behind and (label := interface.find_label(output, before)):
        return Phrase(as_phrase(behind), label)
    classes = output.classes
    if len(classes) == 1 and not colon:
        return Phrase(as_phrase(written), classes[0])
    raise AssistError(_which_label(written, before if colon and behind else "", classes))


def _which_label(written: str, wanted: str, classes: tuple[str, ...]) -> str:
    if wanted:
        there = f"there is {', '.join(classes[:8])}{', …' if len(classes) > 8 else ''}"
        return f"There is no label '{wanted[:40]}' for '{written[:60]}'; {there}."
    label, shown = classes[0] if classes else "Car", written[:60]
    return f"'{shown}' is no label: write '{label}: {shown}', or add it to the predicted_values of its label."
