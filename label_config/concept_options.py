"""What ``model_*`` attributes say about SAM 3: phrases in a prompt field, and rectangles that are examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from label_config.written import count, share, switch, unreadable_count, unreadable_switch

PHRASES, EXEMPLARS = "sam3", "exemplar"
"""Words of ``model_mode``: of a prompt field whose words are phrases, of a rectangle whose boxes are examples."""

THRESHOLD = 0.5
MAX_RESULTS = 20
MOST_RESULTS = 200
"""As many objects as the model can tell on one picture."""


@dataclass(frozen=True)
class ConceptOptions:
    """How phrases and examples are answered.

    Attributes:
        threshold: least score of an object, 0..1.
        max_results: most objects in one answer, 1..200.
        keep_prompt: whether phrases that were typed are asked again on the project's next pictures.
        phrase: whether the label's name goes with the drawn examples.
        negatives: labels, in lower case, whose rectangles show what is not meant.
    """

    threshold: float = THRESHOLD
    max_results: int = MAX_RESULTS
    keep_prompt: bool = False
    phrase: bool = False
    negatives: tuple[str, ...] = ()

    def is_negative(self, label: str) -> bool:
        """Whether rectangles of that label show what is not meant."""
        return label.strip().lower() in self.negatives


def concept_options(options: Mapping[str, str]) -> ConceptOptions:
    """Read a control's options; one that cannot be read counts as not given.

    Args:
        options: :attr:`Control.options <label_config.interface.Control.options>`: names without ``model_``.

    Example:
        >>> concept_options({"score_threshold": "0.3", "negatives": "Not this, Nor this"}).negatives
        ('not this', 'nor this')
    """
    threshold = share(options.get("score_threshold", ""))
    names = (name.strip().lower() for name in options.get("negatives", "").split(","))
    return ConceptOptions(
        threshold=THRESHOLD if threshold is None else threshold,
        max_results=count(options.get("max_results", ""), MOST_RESULTS) or MAX_RESULTS,
        keep_prompt=switch(options.get("keep_prompt", "")) is True,
        phrase=switch(options.get("phrase", "")) is True,
        negatives=tuple(name for name in names if name),
    )


def mode_of(options: Mapping[str, str]) -> str:
    """``model_mode`` as it is written, in lower case; empty where the tag says nothing."""
    return options.get("mode", "").strip().lower()


def words_by(options: Mapping[str, str], segmenter: str | None) -> Literal["qwen", "sam3"]:
    """Who answers the words of a prompt field: the tag decides, else the segmenter that is chosen.

    Args:
        options: of the field's control.
        segmenter: of the project, else of the installation.
    """
    mode = mode_of(options)
    return "sam3" if mode == PHRASES or (not mode and segmenter == PHRASES) else "qwen"


def unreadable_phrases(where: str, options: Mapping[str, str]) -> Iterator[str]:
    """What :func:`concept_options` passes over in a prompt field's options, in sentences.

    Args:
        where: names the tag.
        options: as above.
    """
    yield from unreadable_count(where, options, "max_results", MOST_RESULTS)
    yield from unreadable_switch(where, options, "keep_prompt")


def unreadable_exemplars(where: str, options: Mapping[str, str], boxes: bool, labels: Sequence[str]) -> Iterator[str]:
    """The same for a tag whose boxes are examples, and what else keeps it from working.

    Args:
        where: names the tag.
        options: as above.
        boxes: whether it draws boxes.
        labels: its own, by name; none where they stand elsewhere.
    """
    if mode_of(options) != EXEMPLARS:
        for name in ("negatives", "phrase"):
            if name in options:
                yield f'{where} has model_{name}, which means nothing without model_mode="{EXEMPLARS}".'
        return
    if not boxes:
        yield f'{where} has model_mode="{EXEMPLARS}", which only a rectangle tag can have: examples are boxes.'
    yield from unreadable_count(where, options, "max_results", MOST_RESULTS)
    yield from unreadable_switch(where, options, "phrase")
    known = {label.strip().lower() for label in labels}
    missing = [name for name in concept_options(options).negatives if known and name not in known]
    if missing:
        yield f'{where} has model_negatives="{options["negatives"]}", but no label "{missing[0]}": add it there.'
