"""Asking the engine, where an answer without classes is better than none."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Protocol

from tator_ml.engine.head import HeadError
from tator_ml.engine.messages import Answer, Ask
from tator_ml.learning.registry import RegistryError

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
