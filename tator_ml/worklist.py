"""In which order a project is worked through, learned from its requests; and so which pictures come next.

Requests carry no annotator. What is known is that somebody looks at a task (a *place*), and that a task which was
not looked at before is where somebody went from one of the places: from the one that was expected to go there, else
from one whose annotation was just submitted, else from the nearest. How they went tells where they will go: by one,
by a few, forward, backward, or as somebody before them went from the same task.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

REACH = 10  # positions: whoever went further did not simply go on
LEFT_SECONDS = 30.0
MOST_PLACES = 64
MOST_PLANNED = 16  # places that are planned for, the latest first
FORGOTTEN_SECONDS = 1800.0
MOST_REMEMBERED = 20_000  # tasks of a project
STRETCH_SECONDS = 300.0  # for how long a page of tasks is believed
MOST_STRETCHES = 64

THIS, NEXT, PREVIOUS = range(3)


@dataclass(frozen=True)
class Want:
    """A task whose pictures are to be warm.

    Attributes:
        task: its number.
        rank: ``THIS``, ``NEXT`` or ``PREVIOUS`` of a place; lower is more urgent.
    """

    task: int
    rank: int


class Positions(Protocol):
    """Label Studio's order of a project's tasks, as far as it is known."""

    def ahead(self, task: int, steps: int) -> int | None:
        """The task ``steps`` positions after another, before it where negative; None where that is not known."""
        ...

    def between(self, task: int, other: int) -> int:
        """Positions from one task to another, negative backwards; the difference of their numbers where unknown."""
        ...


@dataclass
class _Place:
    at: float
    came_from: int | None = None
    stride: int = 1
    last_stride: int | None = None
    done: bool = False  # its annotation was submitted
    left: bool = False  # somebody seems to have gone on from here


class WorkOrder:
    """Where a project is being worked at, and how they go on from there. Not for several threads at once."""

    def __init__(self) -> None:
        self._places: OrderedDict[int, _Place] = OrderedDict()  # by task, the latest last
        self._after: OrderedDict[int, int] = OrderedDict()

    @property
    def places(self) -> list[int]:
        """Tasks that are looked at, the latest first."""
        return list(reversed(self._places))

    def came(self, task: int, now: float, positions: Positions) -> bool:
        """Somebody looks at a task.

        Args:
            task: its number.
            now: seconds of any clock that only goes forward.
            positions: of the project's tasks.

        Returns:
            Whether it is a new place.
        """
        self._forget(now)
        known = self._places.get(task)
        if known is not None:
            known.at, known.done, known.left = now, False, False
            self._places.move_to_end(task)
            return False
        place, origin = _Place(now), self._origin(task, positions)
        if origin is not None:
            before = self._places[origin]
            went = positions.between(origin, task)
            place.came_from = origin
            place.last_stride = went if abs(went) <= REACH else None
            # twice the same is a habit; once is a direction
            direction = (1 if went > 0 else -1) if place.last_stride is not None else _sign(before.stride)
            place.stride = went if went == before.last_stride and abs(went) <= REACH else direction
            self._after[origin] = task
            self._after.move_to_end(origin)
            if len(self._after) > MOST_REMEMBERED:
                self._after.popitem(last=False)
            if place.last_stride is not None:  # whoever is further away is likely to be somebody else
                before.left = True
                if before.done:
                    del self._places[origin]
        self._places[task] = place
        while len(self._places) > MOST_PLACES:
            self._places.popitem(last=False)
        return True

    def submitted(self, task: int, now: float) -> None:
        """An annotation of a task was submitted: whoever made it goes on from there."""
        place = self._places.get(task)
        if place is not None:
            place.at, place.done, place.left = now, True, False

    def wanted(self, now: float, positions: Positions) -> list[Want]:
        """What is to be warm, the most urgent first, each task once: all places, then next, then previous ones."""
        self._forget(now)
        ranked: list[list[int | None]] = [[], [], []]
        for task in [one for one in self.places if not self._places[one].left][:MOST_PLANNED]:
            place = self._places[task]
            ranked[THIS].append(task)
            ranked[NEXT] += self._next(task, place, positions)
            back = place.came_from if place.came_from is not None else positions.ahead(task, -place.stride)
            ranked[PREVIOUS].append(back)
        # or so it seems: with several annotators close to each other, somebody may be there still
        ranked[PREVIOUS] += [one for one in self.places if now - self._places[one].at <= LEFT_SECONDS][:MOST_PLANNED]
        seen: set[int] = set()
        wants = []
        for rank, tasks in enumerate(ranked):
            for one in tasks:
                if one is not None and one not in seen:
                    seen.add(one)
                    wants.append(Want(one, rank))
        return wants

    def _next(self, task: int, place: _Place, positions: Positions) -> list[int]:
        """Where they may go from a place, the likeliest first."""
        steps = dict.fromkeys([place.stride, _sign(place.stride)])
        onward = next((one for one in (positions.ahead(task, step) for step in steps) if one is not None), None)
        went = self._after.get(task)
        if went == place.came_from:  # somebody who goes the other way came from there
            went = None
        near = went is not None and abs(positions.between(task, went)) <= REACH
        both = (went, onward) if near else (onward, went)
        return list(dict.fromkeys(one for one in both if one is not None))

    def _origin(self, task: int, positions: Positions) -> int | None:
        """The place from which somebody came to a task that is none yet."""
        done = [one for one in self.places if self._places[one].done]
        expected = [one for one in self.places if task in self._next(one, self._places[one], positions)]
        if expected:
            return next((one for one in expected if one in done), expected[0])
        near = [one for one in self.places if abs(positions.between(one, task)) <= REACH]
        if near:
            candidates = [one for one in near if one in done] or near
            return min(candidates, key=lambda one: abs(positions.between(one, task)))
        return max(done, key=lambda one: self._places[one].at, default=None)

    def _forget(self, now: float) -> None:
        while self._places:
            task, place = next(iter(self._places.items()))
            if now - place.at <= FORGOTTEN_SECONDS:
                return
            del self._places[task]


@dataclass(frozen=True)
class Stretch:
    """Neighbouring tasks in Label Studio's order.

    Attributes:
        tasks: their numbers, without a gap.
        first: whether none comes before them.
        last: whether none comes after them.
    """

    tasks: tuple[int, ...]
    first: bool = False
    last: bool = False


class KnownTasks:
    """Which pictures tasks have, and in which order tasks stand, as far as it was heard. Bounded."""

    def __init__(self) -> None:
        self._addresses: OrderedDict[int, tuple[str, ...]] = OrderedDict()
        self._sorted: list[int] = []
        self._stretches: list[tuple[float, Stretch]] = []  # the newest first

    def addresses(self, task: int) -> tuple[str, ...]:
        """Addresses of a task's pictures; none where they are not known."""
        return self._addresses.get(task, ())

    def learn(self, task: int, addresses: Sequence[str]) -> None:
        """Remember a task's pictures."""
        if task not in self._addresses:
            bisect.insort(self._sorted, task)
        self._addresses[task] = tuple(addresses)
        self._addresses.move_to_end(task)
        while len(self._addresses) > MOST_REMEMBERED:
            dropped, _ = self._addresses.popitem(last=False)
            del self._sorted[bisect.bisect_left(self._sorted, dropped)]

    def add(self, stretch: Stretch, now: float) -> None:
        """Remember how tasks follow each other."""
        kept = [(at, one) for at, one in self._stretches if now - at <= STRETCH_SECONDS]
        self._stretches = [(now, stretch), *kept][:MOST_STRETCHES]

    def around(self, task: int, now: float) -> bool:
        """Whether the task's neighbours on both sides are known."""
        for at, one in self._stretches:
            if now - at <= STRETCH_SECONDS and task in one.tasks:
                index = one.tasks.index(task)
                if (index > 0 or one.first) and (index < len(one.tasks) - 1 or one.last):
                    return True
        return False

    def ahead(self, task: int, steps: int) -> int | None:
        """See :class:`Positions`; of tasks in no known page, the nearest that was heard of."""
        for _, one in self._stretches:
            if task in one.tasks and 0 <= (index := one.tasks.index(task) + steps) < len(one.tasks):
                return one.tasks[index]
            if task in one.tasks and (one.last if steps > 0 else one.first):
                return None
        if abs(steps) != 1 or any(task in one.tasks for _, one in self._stretches):
            return None
        index = bisect.bisect_right(self._sorted, task) if steps > 0 else bisect.bisect_left(self._sorted, task) - 1
        return self._sorted[index] if 0 <= index < len(self._sorted) else None

    def between(self, task: int, other: int) -> int:
        """See :class:`Positions`."""
        for _, one in self._stretches:
            if task in one.tasks and other in one.tasks:
                return one.tasks.index(other) - one.tasks.index(task)
        return other - task


def _sign(number: int) -> int:
    return 1 if number >= 0 else -1
