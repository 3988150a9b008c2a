"""What a prompt field's ``model_*`` attributes say about words: how they are answered, and what goes with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from label_config.concept_options import PHRASES, mode_of, unreadable_phrases
from label_config.written import count, switch, unreadable_count, unreadable_switch

Mode = Literal["bbox", "bbox_sam", "point"]
"""``bbox``: the model's boxes; ``bbox_sam``: these through the segmenter; ``point``: its points through it."""

MODES: tuple[Mode, ...] = get_args(Mode)
MAX_RESULTS = 8
MOST_RESULTS = 50


@dataclass(frozen=True)
class WordOptions:
    """How words are answered.

    Attributes:
        mode: what the model is asked for, and whether the segmenter follows.
        max_results: most objects in one answer, 1..50.
        image_type: kind of picture, for the prompt's template; None leaves it to the model's own.
        extra_context: further words for the template; likewise.
        keep_prompt: whether words that were typed are asked again on the project's next pictures.
    """

    mode: Mode = "bbox"
    max_results: int = MAX_RESULTS
    image_type: str | None = None
    extra_context: str | None = None
    keep_prompt: bool = False


def word_options(options: Mapping[str, str]) -> WordOptions:
    """Read a control's options; one that cannot be read counts as not given.

    Args:
        options: :attr:`Control.options <label_config.interface.Control.options>`: names without ``model_``.

    Example:
        >>> word_options({"mode": "point", "max_results": "20"})
        WordOptions(mode='point', max_results=20, image_type=None, extra_context=None, keep_prompt=False)
    """
    mode = options.get("mode", "").strip().lower()
    return WordOptions(
        mode=mode if mode in MODES else "bbox",
        max_results=count(options.get("max_results", ""), MOST_RESULTS) or MAX_RESULTS,
        image_type=options.get("image_type", "").strip() or None,
        extra_context=options.get("extra_context", "").strip() or None,
        keep_prompt=switch(options.get("keep_prompt", "")) is True,
    )


def unreadable(where: str, options: Mapping[str, str]) -> Iterator[str]:
    """What :func:`word_options` passes over, in sentences.

    Args:
        where: names the tag.
        options: as above.
    """
    if mode_of(options) == PHRASES:
        yield from unreadable_phrases(where, options)
        return
    if options.get("mode", "").strip() and mode_of(options) not in MODES:
        yield f'{where} has model_mode="{options["mode"]}", but Tator knows only {", ".join(MODES)} and {PHRASES}.'
    yield from unreadable_count(where, options, "max_results", MOST_RESULTS)
    yield from unreadable_switch(where, options, "keep_prompt")
