"""Asking the engine, where an answer without classes is better than none."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from tator_ml.engine.head import HeadError
from tator_ml.engine.messages import Answer, Ask
from tator_ml.learning.registry import RegistryError
from tator_ml.prompts.assists import Assist, needs_mask

log = logging.getLogger(__name__)


class AnswersAsks(Protocol):
    """What this needs of an engine."""

    def answer(self, ask: Ask) -> Answer:
        """Answer prompts."""
        ...


def answer_or_without_class(engine: AnswersAsks, ask: Ask) -> tuple[Answer, str | None]:
    """The engine's answer; where the class head cannot be asked, without classes.

    Returns:
        The answer, and why it has no classes, in a sentence; None where it has, or none were asked for.

    Raises:
        EngineError, ImageError: with a sentence.
    """
    try:
        return engine.answer(ask), None
    except (HeadError, RegistryError) as error:  # the box is still worth having
        log.warning("answered without a class: %s", error)
        return engine.answer(replace(ask, classify=False, head=None)), str(error)


def ask_for(image: str, assists: Sequence[Assist], head: str | None) -> Ask:
    """One question about all assists on a picture.

    Args:
        image: content hash of the picture.
        assists: of one request.
        head: version of the project's class head; None for the engine's own.
    """
    return Ask(
        image=image,
        prompts=tuple(assist.prompt for assist in assists),
        refine=any(assist.refine for assist in assists),
        classify=any(assist.classify for assist in assists),
        masks=any(needs_mask(assist) for assist in assists),
        head=head,
        label=next(iter(assists[0].labels), None) if assists else None,
    )
