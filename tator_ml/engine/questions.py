"""Questions, in words or about concepts, that wait or are being answered: superseded, taken back, waited for."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from tator_ml.engine.lanes import About, Lane, Lanes, Ticket
from tator_ml.engine.messages import EngineError, Stopped, Superseded

LOOK_SECONDS = 0.25
"""How often it is looked whether somebody still waits."""
GRACE_SECONDS = 5.0
"""Beyond its limit, for the token, layer or concept that was begun before."""


class Ask(Protocol):
    """What the kinds of questions have in common; see :class:`~tator_ml.engine.detections.DetectAsk`."""

    @property
    def lane(self) -> str:
        """``click`` or ``batch``."""
        ...

    @property
    def task(self) -> str:
        """Whose question it is."""
        ...

    @property
    def seconds(self) -> float | None:
        """From now until the answer."""
        ...


@dataclass(eq=False)
class Question:
    """One that waits or is being answered.

    Attributes:
        task: whose it is; empty for a job's, which nothing supersedes.
        ticket: its place in a lane.
        begun: when it came, on the monotonic clock.
        until: when nobody waits any longer, on the same; infinite in a job without limit.
        stop: set when its answer is not wanted any more.
        superseded: whether that is for a newer one.
    """

    task: str
    ticket: Ticket
    begun: float
    until: float
    stop: threading.Event = field(default_factory=threading.Event)
    superseded: bool = False

    def over(self) -> bool:
        """Whether it is to be ended at the next opportunity."""
        return self.stop.is_set() or time.monotonic() > self.until


class Questions:
    """All of an engine; any thread may ask."""

    def __init__(self, lanes: Lanes, longest_seconds: float) -> None:
        """Prepare.

        Args:
            lanes: to the device.
            longest_seconds: that a person waits.
        """
        self._lanes = lanes
        self._longest = longest_seconds
        self._lock = threading.Lock()
        self._open: set[Question] = set()

    @contextmanager
    def open(self, ask: Ask, image: str = "", segmenter: str = "", what: str = "") -> Iterator[Question]:
        """A question's place, which is given up after the block; an older one of the task ends.

        Args:
            ask: the question.
            image: the picture, where it may be encoded for this: who clicks on it meanwhile waits for that.
            segmenter: name of the one that encodes it.
            what: the question in words, for whoever looks on.

        Raises:
            Busy: too much waits already.
        """
        begun, person = time.monotonic(), ask.lane == "click"
        limit = self._longest if person else math.inf
        until = begun + min(ask.seconds if ask.seconds is not None else math.inf, limit)
        task = ask.task if person else ""
        about = About(image, segmenter, task, frozenset({task} - {""}), what=what)
        ticket = self._lanes.enter(Lane.WORDS if person else Lane.BATCH, about)
        question = Question(task, ticket, begun, until)
        self._enter(question)
        try:
            yield question
        finally:
            question.stop.set()
            self._lanes.leave(ticket)
            with self._lock:
                self._open.discard(question)

    def answer(self, question: Question, abandoned: Callable[[], bool], too_slow: str) -> Any:
        """Wait for what the question's work gives.

        Args:
            question: whose work is ready.
            abandoned: looked at now and then; True ends it.
            too_slow: the error's sentence.

        Raises:
            Superseded: a newer question of the task is answered in this one's place.
            Stopped: it was taken back, or abandoned.
            EngineError: there was no answer in time.
        """
        future = question.ticket.future
        while not future.done() and not question.stop.is_set():
            if abandoned():
                question.stop.set()
            if time.monotonic() > question.until + (GRACE_SECONDS if future.running() else 0):
                raise EngineError(too_slow)
            wait([future], LOOK_SECONDS)
        if question.superseded:
            raise Superseded("A newer question on this task is answered in this one's place.")
        if question.stop.is_set():
            raise Stopped("The question was taken back.")
        try:
            return future.result()
        except CancelledError:
            raise EngineError("Tator's engine is stopping; try again in a moment.") from None

    def stop(self, task: str) -> int:
        """Take back all questions of a task, waiting or being answered; returns how many."""
        with self._lock:
            found = [one for one in self._open if task and one.task == task]
        for one in found:
            one.stop.set()
        return len(found)

    def _enter(self, question: Question) -> None:
        """Take one's place among the questions; of a task, the one that came last stays, whoever gets here first."""
        with self._lock:
            others = [one for one in self._open if question.task and one.task == question.task]
            self._open.add(question)
        newest = max([*others, question], key=lambda one: one.ticket.number)
        for one in (*others, question):
            if one is not newest:
                one.superseded = True
                one.stop.set()
