"""The list of jobs: read from Redis once a second for everybody, then chosen from."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tator_ml.jobs.connection import living_workers, reached
from tator_ml.jobs.records import JobRecord, JobRecords
from tator_ml.web.access import Visitor
from tator_ml.web.dashboard.page import seen_by
from tator_sdk.settings import Settings

ON_A_PAGE = 25
FRESH_SECONDS = 0.9
MOST_JOBS = 5000
STATUSES = ("queued", "running", "done", "failed", "cancelled")


@dataclass(frozen=True)
class Wanted:
    """Which jobs a visitor asks for; None for any.

    Attributes:
        project, kind, status: of the jobs.
        page: from 1.
    """

    project: int | None = None
    kind: str | None = None
    status: str | None = None
    page: int = 1

    @classmethod
    def of(cls, given: Mapping[str, str], project: int | None) -> Wanted:
        """What an address asks for."""
        kind, status, page = given.get("kind", ""), given.get("status", ""), given.get("page", "1")
        number = int(page) if page.isascii() and page.isdigit() and len(page) < 6 else 1
        known = kind if kind.replace("-", "").isalnum() and len(kind) < 40 else None
        return cls(project, known, status if status in STATUSES else None, max(1, number))

    @property
    def arguments(self) -> dict[str, str | int]:
        """The address's arguments that ask for the same."""
        given = {"project": self.project, "kind": self.kind, "status": self.status}
        return {name: value for name, value in given.items() if value is not None} | {"page": self.page}

    def at(self, page: int) -> Wanted:
        """The same on another page."""
        return replace(self, page=page)

    def fits(self, record: JobRecord) -> bool:
        """Whether a job is one of these."""
        return (
            self.project in (None, record.project)
            and self.kind in (None, record.kind)
            and self.status in (None, record.status)
        )


@dataclass(frozen=True)
class JobPage:
    """One page of the list.

    Attributes:
        records: the newest first.
        count: of all that fit.
        pages: how many there are.
        idle: whether jobs wait and no worker lives that could take them.
    """

    records: tuple[JobRecord, ...]
    count: int
    pages: int
    idle: bool


@dataclass(frozen=True)
class JobChoices:
    """What the list can be narrowed to, of what the visitor may see."""

    projects: tuple[int, ...]
    kinds: tuple[str, ...]
    statuses: tuple[str, ...] = STATUSES


class History:
    """All jobs without their requests and results."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._read = float("-inf")
        self._known: tuple[JobRecord, ...] = ()
        self._workers = 0

    def page(self, wanted: Wanted, who: Visitor) -> JobPage:
        """One page of what is wanted and may be seen.

        Raises:
            JobError: Redis does not answer.
        """
        records, workers = self._latest()
        fitting = [one for one in records if wanted.fits(one) and who.may_see(one.project)]
        first = ON_A_PAGE * (wanted.page - 1)
        pages = max(1, -(-len(fitting) // ON_A_PAGE))
        waits = any(one.status == "queued" for one in fitting)
        return JobPage(tuple(fitting[first : first + ON_A_PAGE]), len(fitting), pages, waits and not workers)

    def choices(self, who: Visitor) -> JobChoices:
        """Projects and kinds that there are jobs of.

        Raises:
            JobError: Redis does not answer.
        """
        seen = [one for one in self._latest()[0] if who.may_see(one.project)]
        projects = seen_by(who, (one.project for one in seen))
        return JobChoices(tuple(projects), tuple(sorted({one.kind for one in seen})))

    def _latest(self) -> tuple[tuple[JobRecord, ...], int]:
        with self._lock:  # whoever comes first reads for all
            if time.monotonic() - self._read > FRESH_SECONDS:
                with reached(self._settings) as connection:
                    self._known = tuple(JobRecords(connection).summaries(MOST_JOBS))
                    self._workers = living_workers(connection)
                self._read = time.monotonic()
            return self._known, self._workers
