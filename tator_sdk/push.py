"""Predictions into a project, each exactly once, whatever is killed or cut on the way.

Label Studio has no key that would refuse a double, so its own list is what counts: only what is missing there is
sent. A request that was given up on while Label Studio still works on it is waited for (`in_flight`). What arrives
later still is deleted at the end, the newer of two: those that were there keep their ids.

The endpoint (1.23.2) writes a request in one transaction, then counts every prediction of the project anew, 2.7 ms
for each, and answers only then: few large requests are many times faster than many small ones.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from tator_sdk import bulk
from tator_sdk.files import alone
from tator_sdk.in_flight import InFlight
from tator_sdk.settings import Settings
from tator_sdk.studio import StudioError

log = logging.getLogger(__name__)

PUSHED_TOGETHER = 20_000
MOST_BYTES = 32 * 2**20  # of one request; Label Studio takes 250 MiB, and the proxy before it 200
WAITS_SECONDS = (1.0, 3.0, 10.0, 30.0)  # before a push is tried again

Moment = Literal["before sending", "sent", "answered"]
"""Points of a request at which a push may be interrupted: it is noted and not sent; it is on its way; its answer is
here and not noted."""


@dataclass(frozen=True)
class Pushed:
    """What came of a push.

    Attributes:
        created: predictions that are new.
        there: predictions that were there before, and stayed.
        dropped: tasks that have no prediction after all.
        reasons: why, for those of them that were not sent or were refused.
        doubles: late doubles that were removed.
    """

    created: int
    there: int
    dropped: tuple[int, ...]
    reasons: Mapping[int, str] = field(default_factory=dict)
    doubles: int = 0


@dataclass(frozen=True)
class _Batch:
    tasks: tuple[int, ...]
    predictions: tuple[bytes, ...]

    @property
    def content(self) -> bytes:
        return b"[" + b",".join(self.predictions) + b"]"

    def half(self, rows: slice) -> _Batch:
        return _Batch(self.tasks[rows], self.predictions[rows])


class PredictionsOfVersion:
    """The predictions of one model version in a project: at most one a task, however often a push is begun anew."""

    def __init__(
        self,
        settings: Settings,
        project: int,
        version: str,
        moments: Callable[[Moment], None] = lambda _: None,
        together: int | None = None,
    ) -> None:
        """Nothing is asked of Label Studio yet.

        Args:
            settings: where it is.
            project: its number.
            version: ``model_version`` of the predictions.
            moments: called at each `Moment` of each request; what interrupts there is survived.
            together: most predictions in one request; `PUSHED_TOGETHER` unless given.

        Raises:
            StudioError: no token is set.
        """
        self._api = bulk.open_bulk(settings)
        self._project = project
        self._version = version
        self._moments = moments
        self._together = PUSHED_TOGETHER if together is None else together
        name = f"{project}-{hashlib.sha256(version.encode()).hexdigest()[:16]}"
        self._in_flight = InFlight(settings.home / "pushes" / f"{name}.json")

    def standing(self) -> dict[int, list[int]]:
        """Their ids by task, oldest first.

        Raises:
            StudioError: Label Studio does not answer.
        """
        found: dict[int, list[int]] = {}
        if self._api.prediction_count(self._project, self._version):  # the list takes seconds, this does not
            for one in self._api.predictions(self._project):
                if one.version == self._version:
                    found.setdefault(one.task, []).append(one.number)
        return {task: sorted(numbers) for task, numbers in found.items()}

    def push(
        self, tasks: Sequence[int], prediction_of: Callable[[int], dict[str, Any]], before: Callable[[int], None]
    ) -> Pushed:
        """Give each task its prediction unless it has one; those already there keep their ids.

        A prediction that the configuration has no tag or label for is not sent: Label Studio would drop it silently.

        Args:
            tasks: in the order in which they are pushed.
            prediction_of: makes a task's prediction, asked for only while its request is made.
            before: called with the number of tasks done right before each change; may raise to stop.

        Raises:
            StudioError: Label Studio refuses, or does not answer for three quarters of a minute.
            TatorError: another process pushes the same.
        """
        push = _Push(tuple(dict.fromkeys(tasks)), prediction_of, before)
        busy = f"The predictions {self._version} of project {self._project} are being pushed by another process."
        with alone(self._in_flight.path, busy):
            waits = iter(WAITS_SECONDS)
            while True:
                answered = push.answered
                try:
                    self._push_missing(push)
                    return self._checked(push)
                except StudioError as error:
                    waits = iter(WAITS_SECONDS) if push.answered > answered else waits
                    wait = next(waits, None)
                    if wait is None or not error.passing:
                        raise
                    log.warning("predictions of project %s are pushed again in %g s: %s", self._project, wait, error)
                    time.sleep(wait)

    def _push_missing(self, push: _Push) -> None:
        self._in_flight.settle(self._has)
        standing = self.standing()
        push.found(standing)
        missing = [task for task in push.tasks if task not in standing and task not in push.reasons]
        if not missing:
            return
        done = len(push.tasks) - len(missing)
        for batch, passed in self._batches(missing, push):
            self._send(batch, push, done)
            done += passed

    def _batches(self, missing: Sequence[int], push: _Push) -> Iterator[tuple[_Batch, int]]:
        """What is sent together, and how many tasks are done with it."""
        from label_studio_sdk.label_interface.interface import LabelInterface  # a second: not for every verb

        config = self._api.get(f"/api/projects/{self._project}").get("label_config")
        rules: Any = LabelInterface(config or "<View/>")
        tasks: list[int] = []
        predictions: list[bytes] = []
        size = passed = 0
        for task in missing:
            passed += 1
            prediction = prediction_for(self._version, task, push.prediction_of(task))
            if wrong := rules.validate_prediction(prediction, return_errors=True):
                push.reasons[task] = str(wrong[0])
                continue
            content = json.dumps(prediction, ensure_ascii=False).encode()
            if tasks and (size + len(content) > MOST_BYTES or len(tasks) == self._together):
                yield _Batch(tuple(tasks), tuple(predictions)), passed - 1
                tasks, predictions, size, passed = [], [], 0, 1
            tasks.append(task)
            predictions.append(content)
            size += len(content)
        if tasks:
            yield _Batch(tuple(tasks), tuple(predictions)), passed

    def _send(self, batch: _Batch, push: _Push, done: int) -> None:
        """Create predictions; one that Label Studio refuses does not take the others with it."""
        push.before(done)
        content = batch.content
        self._in_flight.begin(str(batch.tasks[-1]), len(content))
        self._moments("before sending")
        try:
            answer = self._api.post(
                f"/api/projects/{self._project}/import/predictions", content, sent=partial(self._moments, "sent")
            )
        except StudioError as error:
            if error.passing and not error.unsent:
                raise  # the note stays: nobody knows what came of it
            self._in_flight.end()
            if error.status not in {400, 413}:
                raise
            # then it created none: a task of the batch is gone, say, or a proxy takes no request of this size
            if len(batch.tasks) == 1:
                push.reasons[batch.tasks[0]] = str(error)
                log.warning("the prediction of task %s is refused: %s", batch.tasks[0], error)
                return
            middle = len(batch.tasks) // 2
            self._send(batch.half(slice(middle)), push, done)
            self._send(batch.half(slice(middle, None)), push, done + middle)
            return
        self._moments("answered")
        self._in_flight.end()
        push.answered += 1
        push.expected += int(answer["created"])
        push.complete &= int(answer["created"]) == len(batch.tasks)

    def _has(self, task: str) -> bool:
        """Whether a task has its prediction; a request is written in one go, so its last one stands for all."""
        return any(one.version == self._version for one in self._api.predictions_of_task(int(task)))

    def _checked(self, push: _Push) -> Pushed:
        """Count; where that is not what was sent, look what is there, and remove late doubles."""
        if push.complete and self._api.prediction_count(self._project, self._version) == push.expected:
            dropped = tuple(task for task in push.tasks if task in push.reasons)
            there = push.there or 0
            return Pushed(len(push.tasks) - len(dropped) - there, there, dropped, push.reasons)
        standing = self.standing()
        doubles = [late for numbers in standing.values() for late in numbers[1:]]
        for number in doubles:
            push.before(len(push.tasks))
            self._api.delete(f"/api/predictions/{number}/")
        dropped = tuple(task for task in push.tasks if task not in standing)
        there = push.there or 0
        created = len(push.tasks) - len(dropped) - there
        return Pushed(created, there, dropped, push.reasons, len(doubles))


def prediction_for(version: str, task: int, prediction: Mapping[str, Any]) -> dict[str, Any]:
    """A prediction as Label Studio takes it, of this version and for this task."""
    return {**prediction, "task": task, "model_version": version}


@dataclass
class _Push:
    """How a push stands.

    Attributes:
        there: how many of the tasks had their prediction when it began; None before that is known.
        expected: predictions of the version that should be there by now.
        complete: each request created what it held, and there are no doubles.
        answered: requests that were.
    """

    tasks: tuple[int, ...]
    prediction_of: Callable[[int], dict[str, Any]]
    before: Callable[[int], None]
    there: int | None = None
    expected: int = 0
    complete: bool = True
    answered: int = 0
    reasons: dict[int, str] = field(default_factory=dict)

    def found(self, standing: Mapping[int, Sequence[int]]) -> None:
        if self.there is None:
            self.there = len(standing.keys() & set(self.tasks))
        self.expected = sum(map(len, standing.values()))
        self.complete = self.expected == len(standing)
