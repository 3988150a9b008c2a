"""What Label Studio waits for: done in the time that it has, with the strip told how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from time import monotonic
from typing import TypeVar

from tator_ml.engine.messages import EngineError
from tator_ml.prompts.assists import AssistError
from tator_ml.services import Services

Answered = TypeVar("Answered")

TICK_SECONDS = 1.0
LEAST_SECONDS = 0.05
"""For which a step is waited for in any case: it may have been done long before."""


def in_time(
    services: Services, project: int | None, doing: Callable[[], str], ask: Callable[[], Answered], seconds: float
) -> Answered:
    """What asking comes to.

    Args:
        services: of the web process.
        project: whose strip is told.
        doing: the current step in words.
        ask: asks; in a thread of its own.
        seconds: the most that it may take.

    Raises:
        AssistError: it takes longer.
        TatorError: with a sentence.
    """
    begun = monotonic()

    def said() -> str:
        return f"{doing()}, {_tokens(services)}{monotonic() - begun:.0f} s…"

    for answer in steps_in_time(services, project, said, (ask() for _ in range(1)), seconds):
        return answer
    raise AssistError(f"No answer within {seconds:.0f} s: the model is loading or busy; try again in a moment.")


def steps_in_time(
    services: Services, project: int | None, said: Callable[[], str], steps: Iterator[Answered], seconds: float
) -> Iterator[Answered]:
    """What the steps of some work come to, as far as the time allows.

    Args:
        services: of the web process.
        project: whose strip is told.
        said: how far it is, for the strip.
        steps: done one after the other, in a thread of their own; the one that takes too long is left to itself.
        seconds: the most that all may take.

    Raises:
        TatorError: with a sentence.
    """
    begun, ended = monotonic(), object()
    pool = ThreadPoolExecutor(1, thread_name_prefix="tator-typed")
    try:
        while True:
            step = pool.submit(next, steps, ended)
            while True:
                services.notices.progressed(project, said())
                try:
                    answer = step.result(max(LEAST_SECONDS, min(TICK_SECONDS, seconds - (monotonic() - begun))))
                    break
                except FutureTimeout:
                    if step.done():  # it ended just now, or by a time-out of its own
                        answer = step.result()
                        break
                    if monotonic() - begun >= seconds:
                        return
            if answer is ended:
                return
            yield answer  # type: ignore[misc]
    finally:
        services.notices.progressed(project, None)
        pool.shutdown(wait=False, cancel_futures=True)


def _tokens(services: Services) -> str:
    """How much the model has written so far, in words; nothing where that is not known."""
    try:
        writing = [one.writing for one in services.engine.status().vlms if one.writing]
    except EngineError:
        return ""
    return f"{max(writing)} tokens, " if writing else ""
