"""The last sentence for each project's annotators: the editor itself shows no error of a backend."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class ProjectState:
    """What the strip shows of one project.

    Attributes:
        error: the last request's problem in a sentence; None when it went well.
        last: what the last answer was, e.g. ``Star 0.97 in 31 ms``.
        warm: whether the last opened or prompted picture was ready; None before the first.
        working: requests being answered now.
        doing: how far the longest of them is, in words; None where that is not told.
        asked_by: User-Agent of the last request, which tells Label Studio from anything else.
        withheld: why the task that was opened last gets no assistance, in a sentence; None where it does.
        outputs: what points can be answered with in the project's configuration.
        at: when the state last changed, seconds since the epoch.
    """

    error: str | None = None
    last: str | None = None
    warm: bool | None = None
    working: int = 0
    doing: str | None = None
    withheld: str | None = None
    asked_by: str | None = None
    outputs: tuple[str, ...] = ()
    at: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """For the strip's script."""
        return asdict(self)


@dataclass(frozen=True)
class Problem:
    """The last thing that went wrong in a project.

    Attributes:
        said: the sentence that its annotators saw.
        at: when, in seconds since the epoch.
        over: whether something went well since.
    """

    said: str
    at: float
    over: bool


class Notices:
    """State by project, in memory: it tells the present, so a restart may forget it."""

    def __init__(self) -> None:
        self._states: dict[int | None, ProjectState] = {}
        self._failed: dict[int | None, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def problems(self) -> dict[int | None, Problem]:
        """The last problem of each project that had one, the latest first."""
        with self._lock:
            found = {
                project: Problem(said, at, over=self._states[project].error is None)
                for project, (said, at) in self._failed.items()
            }
        return dict(sorted(found.items(), key=lambda one: -one[1].at))

    def get(self, project_id: int | None) -> ProjectState:
        """The state of a project."""
        with self._lock:
            return self._states.get(project_id, ProjectState())

    def begin(self, project_id: int | None, asked_by: str | None = None) -> None:
        """A request begins."""
        self._change(project_id, working=1, asked_by=asked_by)

    def end(self, project_id: int | None) -> None:
        """A request has ended, well or not."""
        self._change(project_id, working=-1)

    def answered(self, project_id: int | None, last: str, warm: bool | None) -> None:
        """A prompt was answered; an earlier error is over."""
        self._change(project_id, error=None, last=last, warm=warm)

    def failed(self, project_id: int | None, error: str) -> None:
        """A prompt could not be answered."""
        self._change(project_id, error=error)
        with self._lock:
            self._failed[project_id] = (error, time.time())

    def progressed(self, project_id: int | None, doing: str | None) -> None:
        """A long request has come so far, or is over."""
        self._change(project_id, doing=doing)

    def withheld(self, project_id: int | None, why: str | None) -> None:
        """A task was opened or asked about that gets no assistance, or one that does."""
        if why is not None:
            self._change(project_id, withheld=why, error=None)
        elif self.get(project_id).withheld is not None:
            self._change(project_id, withheld=None)

    def opened(self, project_id: int | None, warm: bool) -> None:
        """A task was opened."""
        self._change(project_id, error=None, warm=warm)

    def configured(self, project_id: int | None, outputs: tuple[str, ...]) -> None:
        """A request showed what the project's configuration has tags for."""
        if self.get(project_id).outputs != outputs:
            self._change(project_id, outputs=outputs)

    def _change(self, project_id: int | None, working: int = 0, **changes: Any) -> None:
        with self._lock:
            state = self._states.get(project_id, ProjectState())
            self._states[project_id] = replace(
                state, working=max(0, state.working + working), at=time.time(), **changes
            )
