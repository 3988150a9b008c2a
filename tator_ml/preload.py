"""Pictures made ready before anybody opens them, behind the answers to those who work."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tator_ml.worklist import THIS, KnownTasks, Stretch, Want, WorkOrder
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings
from tator_sdk.studio import open_studio, sentences

log = logging.getLogger(__name__)

Work = Callable[[], object]
Json = dict[str, Any]

AGAIN_SECONDS = 60.0  # a neighbour that was asked for is not asked for again for so long
LOOKUP_SECONDS = 2.0  # between two questions to Label Studio about one project
LOOKUP_PAUSE_SECONDS = 60.0  # after one that failed
BEFORE, AFTER = 6, 18  # neighbours that are looked up
MOST_ASKED = 4096


class Preloads:
    """A few threads for what nobody waits for; what is too much is dropped, since it only saves time later."""

    def __init__(self, threads: int = 3, most_waiting: int = 32) -> None:
        self._most_waiting = most_waiting
        self._changed = threading.Condition()
        self._single: deque[Work] = deque()
        self._plans: OrderedDict[Hashable, deque[Work]] = OrderedDict()  # the newest last
        self._running = 0
        self._closed = False
        for number in range(threads):
            threading.Thread(target=self._run, name=f"tator-preload-{number}", daemon=True).start()

    def submit(self, work: Work) -> bool:
        """Do it in the background; False when it was dropped."""
        with self._changed:
            if self._closed or len(self._single) >= self._most_waiting:
                return False
            self._single.append(work)
            self._changed.notify()
            return True

    def replace(self, key: Hashable, works: Sequence[Work]) -> int:
        """Do these instead of what still waits under the same key, in their order; the newest key goes first.

        Returns:
            How many of the earlier ones were dropped, because they had not begun.
        """
        with self._changed:
            dropped = self._plans.pop(key, deque())
            if works and not self._closed:
                self._plans[key] = deque(list(works)[: self._most_waiting])
                self._changed.notify_all()
            return len(dropped)

    @property
    def waiting(self) -> int:
        """How much has not begun."""
        with self._changed:
            return len(self._single) + sum(map(len, self._plans.values()))

    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        with self._changed:
            return not (self._running or self._single or self._plans)

    def close(self) -> None:
        """Begin nothing more."""
        with self._changed:
            self._closed = True
            self._single.clear()
            self._plans.clear()
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._single or self._plans)
                if self._closed:
                    return
                work = self._next()
                self._running += 1
            try:
                work()
            except Exception:  # nobody waits for it, but somebody must learn of it
                log.exception("work in the background failed")
            finally:
                with self._changed:
                    self._running -= 1

    def _next(self) -> Work:
        if self._single:
            return self._single.popleft()
        key = next(reversed(self._plans))
        work = self._plans[key].popleft()
        if not self._plans[key]:
            del self._plans[key]
        return work


class Warms(Protocol):
    """Makes one task's picture ready: fetches it and has it encoded."""

    def __call__(self, project: int, task: int, address: str, looked_at: bool) -> str | None:
        """``looked_at``: somebody is on it now, so the strip is told of it. Returns the picture's content hash."""
        ...


Look = Callable[[int, int], tuple[Stretch, dict[int, Json]]]
"""Project and task → the tasks around it, and their data by number."""


@dataclass
class _Project:
    order: WorkOrder = field(default_factory=WorkOrder)
    tasks: KnownTasks = field(default_factory=KnownTasks)
    read: Callable[[Json], Sequence[str]] = lambda _: ()
    asked: OrderedDict[str, float] = field(default_factory=OrderedDict)
    handed: dict[str, str] = field(default_factory=dict)  # address → content hash, of what the engine was given
    opened: set[int] = field(default_factory=set)  # tasks whose own pictures are still to be made ready
    looked_up: float = float("-inf")
    looking: bool = False


Drop = Callable[[int, Collection[str]], None]
"""Project and the content hashes of pictures that nobody wants any more."""


class Preloader:
    """Decides after each request which pictures are wanted next, and has them made ready."""

    def __init__(self, preloads: Preloads, warm: Warms, look: Look | None = None, drop: Drop | None = None) -> None:
        """Prepare.

        Args:
            preloads: threads for the work.
            warm: makes a picture ready.
            look: asks Label Studio for neighbours; without it only tasks of requests are known.
            drop: takes back what was given to the engine and has not begun there.
        """
        self._drop = drop
        self._preloads = preloads
        self._warm = warm
        self._look = look
        self._lock = threading.Lock()
        self._projects: dict[int, _Project] = {}

    def looked_at(
        self, project: int, task: int, addresses: Sequence[str], read: Callable[[Json], Sequence[str]], opened: bool
    ) -> None:
        """Somebody opened a task or prompts on it: its picture, then the next and the previous one are made ready.

        Args:
            project: number in Label Studio.
            task: number of the task.
            addresses: of its pictures.
            read: task's data → addresses, for neighbours.
            opened: rather than prompted, where the prompt itself makes the picture ready.
        """
        now = time.monotonic()
        with self._lock:
            about = self._projects.setdefault(project, _Project())
            about.read = read
            about.tasks.learn(task, addresses)
            fresh = about.order.came(task, now, about.tasks)
            if opened:
                about.opened.add(task)
            elif not fresh:  # one more click: nothing has changed
                return
        self._plan(project)

    def submitted(self, project: int, task: int) -> None:
        """An annotation of a task was submitted; its next one is wanted most now."""
        with self._lock:
            about = self._projects.get(project)
            if about is None or task not in about.order.places:
                return
            about.order.submitted(task, time.monotonic())
        self._plan(project)

    def forget(self, project: int) -> None:
        """Drop what waits for a project: its preloading was switched off."""
        with self._lock:
            about = self._projects.get(project)
            stale = self._taken_back(project, about, set()) if about is not None else []
        self._preloads.replace(project, stale)

    def _taken_back(self, project: int, about: _Project, wanted: set[str]) -> list[Work]:
        """What tells the engine that the pictures at other addresses are not wanted any more."""
        stale = about.handed.keys() - wanted
        for address in stale:
            about.asked.pop(address, None)
        images, drop = {about.handed.pop(address) for address in stale}, self._drop
        return [lambda: drop(project, images)] if drop is not None and images else []

    def _plan(self, project: int) -> None:
        now = time.monotonic()
        with self._lock:
            about = self._projects[project]
            wants = about.order.wanted(now, about.tasks)
            about.opened &= {want.task for want in wants}
            wanted = {address for want in wants for address in about.tasks.addresses(want.task)}
            works = self._taken_back(project, about, wanted)
            works += [work for want in wants for work in self._works(project, about, want, now)]
            place = next((one for one in about.order.places if not about.tasks.around(one, now)), None)
            look = self._look is not None and place is not None and not about.looking
            if look and now - about.looked_up >= LOOKUP_SECONDS and place is not None:
                about.looked_up = now
                about.looking = self._preloads.submit(lambda: self._look_up(project, place))
            self._preloads.replace(project, works)

    def _works(self, project: int, about: _Project, want: Want, now: float) -> list[Work]:
        works: list[Work] = []
        for address in about.tasks.addresses(want.task):
            here = want.task in about.opened
            if not here and now - about.asked.get(address, float("-inf")) < AGAIN_SECONDS:
                continue
            if want.rank == THIS and not here:  # it is warm from its own opening or click
                continue
            works.append(lambda address=address: self._make(project, want.task, address, want.rank == THIS))  # type: ignore[misc]
        return works

    def _make(self, project: int, task: int, address: str, looked_at: bool) -> None:
        with self._lock:
            asked = self._projects[project].asked
            self._projects[project].opened.discard(task)
            asked[address] = time.monotonic()
            asked.move_to_end(address)
            while len(asked) > MOST_ASKED:
                asked.popitem(last=False)
        image = self._warm(project, task, address, looked_at)
        if image is not None:
            with self._lock:
                self._projects[project].handed[address] = image

    def _look_up(self, project: int, task: int) -> None:
        assert self._look is not None  # noqa: S101
        with self._lock:
            about = self._projects[project]
        try:
            stretch, data = self._look(project, task)
            with self._lock:
                about.tasks.add(stretch, time.monotonic())
                for number, fields in data.items():
                    about.tasks.learn(number, about.read(fields))
        except TatorError as error:
            log.info("project %s: neighbours of task %s are not known: %s", project, task, error)
            with self._lock:
                about.looked_up = time.monotonic() + LOOKUP_PAUSE_SECONDS
            return
        finally:  # whatever happened, or nobody would ever ask again
            with self._lock:
                about.looking = False
        self._plan(project)


class Neighbours:
    """Asks Label Studio for the tasks around one, a page at a time.

    It reads lists only: fetching a task by its number counts as opening it, and Label Studio would ask the backend.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._studio: Any = None
        self._lock = threading.Lock()

    def __call__(self, project: int, task: int) -> tuple[Stretch, dict[int, Json]]:
        """The neighbours of a task, with the data of each.

        Raises:
            StudioError: Label Studio does not answer, or there is no key for it.
        """
        with self._lock:
            if self._studio is None:
                self._studio = open_studio(self._settings)
        from_here = self._page(project, "greater_or_equal", task, "tasks:id", AFTER + 1)
        before = self._page(project, "less", task, "-tasks:id", BEFORE)
        tasks = {int(one.id): dict(one.data or {}) for one in [*reversed(before), *from_here]}
        return Stretch(tuple(sorted(tasks)), first=len(before) < BEFORE, last=len(from_here) <= AFTER), tasks

    def _page(self, project: int, operator: str, task: int, ordering: str, count: int) -> list[Any]:
        about = {"filter": "filter:tasks:id", "operator": operator, "type": "Number", "value": task}
        query = json.dumps({"filters": {"conjunction": "and", "items": [about]}, "ordering": [ordering]})
        with sentences(self._settings.label_studio_url):
            pager = self._studio.tasks.list(project=project, query=query, page_size=count, fields="task_only")
            return list(pager.items or [])
