"""Four lanes to one device: a click overtakes preloads, these overtake questions in words, and all overtake batches.

One thread does the work, so a model is never asked twice at once; whatever waits longest in the
best lane comes next. Work that takes long is cut into steps by whoever submits it, or calls
:meth:`Lanes.pause` between its parts, where what waits in better lanes is done first.

A request takes its place with :meth:`Lanes.enter` when it comes, and may start once :meth:`Lanes.ready`
brings its work: what a picture needs beforehand (reading, decoding) is done by the caller's thread, while
the request counts, ages and can be superseded.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar

from tator_ml.engine.messages import Busy, Flight, Superseded
from tator_ml.last_hour import LastHour, Latency

T = TypeVar("T")
MOST_FLIGHTS = 100
"""So many are told of one by one; beyond that they are only counted."""
LATENCIES_SECONDS = 5.0
"""For how long percentiles are told again, which whoever looks on asks for every second."""


class Lane(IntEnum):
    """Lower goes first."""

    CLICK = 0
    PRELOAD = 1
    WORDS = 2
    BATCH = 3


@dataclass(frozen=True)
class About:
    """What a request is about, as far as requests are compared with each other.

    Attributes:
        image, segmenter: the picture and the name of the model.
        task, prompt_ids: see :class:`~tator_ml.engine.messages.Ask`.
        group: preloads of one group are dropped together.
        what: it is, in words, for whoever looks on.
    """

    image: str = ""
    segmenter: str = ""
    task: str = ""
    prompt_ids: frozenset[str] = frozenset()
    group: str = ""
    what: str = ""

    def contains(self, older: About) -> bool:
        """Whether an answer to this makes one to the older request needless."""
        return bool(self.task and older.prompt_ids) and self.task == older.task and older.prompt_ids <= self.prompt_ids


@dataclass(eq=False)
class Ticket:
    """A place in a lane; ``future`` gets the result, the error, or the reason why the place was taken away."""

    lane: Lane
    number: int
    about: About
    entered: float = field(default_factory=time.monotonic)
    future: Future[Any] = field(default_factory=Future)
    work: Callable[[], Any] | None = None


Started = tuple[Ticket, Callable[[], Any]]
"""A place whose turn has come, and its work."""


class Lanes:
    """A bounded priority queue before one working thread."""

    def __init__(self, limits: dict[Lane, int] | None = None) -> None:
        """Start the thread.

        Args:
            limits: how much may wait in each lane; more is refused as busy.
        """
        self._limits = limits or {Lane.CLICK: 64, Lane.PRELOAD: 32, Lane.WORDS: 32, Lane.BATCH: 256}
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._waiting: dict[int, Ticket] = {}
        self._counts: Counter[Lane] = Counter()
        self._ready: list[tuple[Lane, int, Ticket]] = []
        self._closed = False
        self._running: list[Ticket] = []  # of the device's thread alone: what pauses below what it let pass
        self.superseded = 0
        self.dropped = 0
        self._last_hour = LastHour(time.monotonic)
        self._told: tuple[float, dict[str, Latency]] = (float("-inf"), {})
        self._thread = threading.Thread(target=self._work, name="tator-device", daemon=True)
        self._thread.start()

    def enter(self, lane: Lane, about: About | None = None) -> Ticket:
        """Take a place; what it supersedes loses its own.

        Raises:
            Busy: as much as is allowed waits in the lane already, or the lanes are closed.
        """
        about = about or About()
        with self._changed:
            if self._closed:
                raise Busy("Tator's engine is stopping; try again in a moment.")
            older = [one for one in self._waiting.values() if one.lane == lane and about.contains(one.about)]
            if self._counts[lane] - len(older) >= self._limits[lane]:
                raise Busy("Tator is busy; try again in a moment.")
            for one in older:
                self._forget(one)
            self.superseded += len(older)
            ticket = Ticket(lane, next(self._order), about)
            self._waiting[ticket.number] = ticket
            self._counts[lane] += 1
        for one in older:
            one.future.set_exception(Superseded("A newer click on this task is answered in this one's place."))
        return ticket

    def ready(self, ticket: Ticket, work: Callable[[], Any]) -> None:
        """Let a place's work start when its turn comes; nothing happens where the place was taken away."""
        with self._changed:
            if ticket.number not in self._waiting:
                return
            ticket.work = work
            heapq.heappush(self._ready, (ticket.lane, ticket.number, ticket))
            self._changed.notify()

    def leave(self, ticket: Ticket) -> None:
        """Give a place up; what has started is finished."""
        with self._changed:
            waited = ticket.number in self._waiting
            self._forget(ticket)
        if waited:
            ticket.future.cancel()

    def submit(self, lane: Lane, work: Callable[[], T], about: About | None = None) -> Future[T]:
        """Queue ``work``; its result or exception arrives in the future.

        Raises:
            Busy: as much as is allowed waits in the lane already.
        """
        ticket = self.enter(lane, about)
        self.ready(ticket, work)
        return ticket.future

    def drop(self, lane: Lane, unwanted: Callable[[About], bool]) -> int:
        """Take away the places in a lane that are unwanted; returns how many. What has started is finished."""
        with self._changed:
            gone = [one for one in self._waiting.values() if one.lane == lane and unwanted(one.about)]
            for one in gone:
                self._forget(one)
            self.dropped += len(gone)
        for one in gone:
            one.future.cancel()
        return len(gone)

    def pause(self, words: bool = False) -> None:
        """Do first what waits in better lanes than the work that calls; from any other thread nothing happens.

        The encoding of a picture takes seconds on a CPU and can be left between two blocks of its network, so a
        click that comes meanwhile waits for one block instead of for all of them.

        Args:
            words: let questions in words go first, too. They take long, and an encoding that was left for one would
                have clicks on its picture wait for both.
        """
        if threading.current_thread() is not self._thread or not self._running:
            return
        lane = self._running[-1].lane
        if not words and lane > Lane.WORDS:
            lane = Lane.WORDS
        # read without the lock: what comes a moment too late is seen at the next pause
        while self._ready and self._ready[0][0] < lane and (item := self._next_before(lane)) is not None:
            self._do(*item)

    def waits(self, lane: Lane, image: str, segmenter: str) -> bool:
        """Whether the picture waits in the lane already, for that model."""
        with self._changed:
            return any(
                one.lane == lane and (one.about.image, one.about.segmenter) == (image, segmenter)
                for one in self._waiting.values()
            )

    def waiting(self) -> dict[str, int]:
        """How much waits in each lane, by its name in lower case."""
        with self._changed:
            return {lane.name.lower(): self._counts[lane] for lane in Lane}

    def oldest_seconds(self) -> dict[str, float]:
        """How long the longest has waited in each lane; 0 where nothing waits."""
        now = time.monotonic()
        with self._changed:
            entered = {lane: [one.entered for one in self._waiting.values() if one.lane == lane] for lane in Lane}
        return {lane.name.lower(): now - min(times, default=now) for lane, times in entered.items()}

    def latencies(self) -> dict[str, Latency]:
        """From entering a lane to the end of the work, in the last hour; lanes in which nothing ended are left out."""
        now = time.monotonic()
        if now - self._told[0] > LATENCIES_SECONDS:
            self._told = (now, {lane: latency for (lane, _), latency in self._last_hour.by_kind().items()})
        return self._told[1]

    def flights(self) -> tuple[Flight, ...]:
        """What is in flight: what runs, then the lanes in the order of their turns; at most ``MOST_FLIGHTS``."""
        now = time.monotonic()
        running = list(reversed(self._running))  # a copy made at once, while the device's thread goes on
        with self._changed:
            waiting = heapq.nsmallest(
                MOST_FLIGHTS, self._waiting.values(), key=lambda one: (one.work is None, one.lane, one.number)
            )
            shown = [*((one, True) for one in running), *((one, False) for one in waiting)][:MOST_FLIGHTS]
            return tuple(_flight(one, now, runs) for one, runs in shown)

    def close(self) -> None:
        """Finish what is running and end the thread; what waits is cancelled."""
        with self._changed:
            self._closed = True
            gone = list(self._waiting.values())
            for one in gone:
                self._forget(one)
            self._changed.notify_all()
        for one in gone:
            one.future.cancel()
        self._thread.join(timeout=30)

    def _forget(self, ticket: Ticket) -> None:
        """Under the lock. The work goes too: it may hold a decoded picture."""
        if self._waiting.pop(ticket.number, None) is not None:
            self._counts[ticket.lane] -= 1
            ticket.work = None

    def _next(self) -> Started | None:
        """What comes next, waited for; None when the lanes are closed."""
        with self._changed:
            while not self._closed:
                while self._ready:
                    ticket = heapq.heappop(self._ready)[2]
                    work = ticket.work
                    self._forget(ticket)
                    if work is not None:
                        return ticket, work
                self._changed.wait()
        return None

    def _next_before(self, lane: Lane) -> Started | None:
        """What may go before work of this lane: nothing on a picture that is being encoded, or it would be twice."""
        at_work = {one.about.image for one in self._running} - {""}
        with self._changed:
            for entry in sorted(self._ready):
                ticket, work = entry[2], entry[2].work
                if ticket.lane >= lane:
                    break
                if work is not None and ticket.about.image not in at_work:
                    self._ready.remove(entry)
                    heapq.heapify(self._ready)
                    self._forget(ticket)
                    return ticket, work
        return None

    def _do(self, ticket: Ticket, work: Callable[[], Any]) -> None:
        if not ticket.future.set_running_or_notify_cancel():
            return
        self._running.append(ticket)
        try:
            ticket.future.set_result(work())
        except BaseException as error:  # belongs to whoever waits for the future
            ticket.future.set_exception(error)
        finally:
            self._running.pop()
            self._last_hour.add(ticket.lane.name.lower(), "", time.monotonic() - ticket.entered)

    def _work(self) -> None:
        while (item := self._next()) is not None:
            self._do(*item)
            del item  # the last picture must not live until the next one comes


def _flight(ticket: Ticket, now: float, runs: bool) -> Flight:
    about = ticket.about
    return Flight(
        lane=ticket.lane.name.lower(),
        state="running" if runs else "preparing" if ticket.work is None else "waiting",
        seconds=now - ticket.entered,
        what=about.what,
        image=about.image,
        segmenter=about.segmenter,
        task=about.task or about.group,
    )
