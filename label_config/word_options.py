"""What a prompt field's ``model_*`` attributes say about words: how they are answered, and what goes with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from label_config.concept_options import PHRASES, mode_of, unreadable_phrases

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
        max_results=_count(options.get("max_results", "")) or MAX_RESULTS,
        image_type=options.get("image_type", "").strip() or None,
        extra_context=options.get("extra_context", "").strip() or None,
        keep_prompt=options.get("keep_prompt", "").strip().lower() == "true",
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
    mode, count, keep = (options.get(name, "") for name in ("mode", "max_results", "keep_prompt"))
    if mode.strip() and mode_of(options) not in MODES:
        yield f'{where} has model_mode="{mode}", but Tator knows only {", ".join(MODES)} and {PHRASES}.'
    if count.strip() and _count(count) is None:
        yield f'{where} has model_max_results="{count}", which is no number from 1 to {MOST_RESULTS}.'
    if keep.strip().lower() not in {"", "true", "false"}:
        yield f'{where} has model_keep_prompt="{keep}", which is neither true nor false.'


def _count(written: str) -> int | None:
    digits = written.strip()
    number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 4 else 0
    return number if 1 <= number <= MOST_RESULTS else None
