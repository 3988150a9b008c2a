"""Handing out work packages as tabs of Label Studio's Data Manager, and taking them back."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tator_sdk.activity import drafted
from tator_sdk.bulk import open_bulk
from tator_sdk.errors import TatorError
from tator_sdk.files import alone
from tator_sdk.packages import Package, PackageRecords, Share, divide, ranges
from tator_sdk.settings import Settings
from tator_sdk.studio import UNLABELLED, open_studio, sentences

BUSY = "Work is being handed out in this project at this moment; try again."
MARK = "tator"
"""Under which name a tab has its package's id, for one whose number was not written down before a crash."""


@dataclass(frozen=True)
class Plan:
    """Who would get what.

    Attributes:
        project: its number.
        parts: person and tasks.
        drafts: tasks that stay with whoever has a draft of them.
        taken: unlabelled tasks that are in open packages.
    """

    project: int
    parts: tuple[tuple[str, tuple[int, ...]], ...]
    drafts: int
    taken: int

    @property
    def signature(self) -> str:
        """The same for the same parts only: what was looked at is what is handed out."""
        return hashlib.sha256(json.dumps([self.project, self.parts]).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Standing:
    """How far a package is.

    Attributes:
        package: it.
        left: its tasks that are not labelled.
        there: whether its tab is still in the Data Manager; without, its tasks are free again.
    """

    package: Package
    left: int
    there: bool = True

    @property
    def done(self) -> int:
        """Its tasks that are labelled, or gone."""
        return len(self.package.tasks) - self.left


class HandingOut:
    """Work packages of one project."""

    def __init__(self, settings: Settings, project: int) -> None:
        self._settings = settings
        self._project = project
        self._records = PackageRecords(settings)

    def plan(self, shares: Sequence[Share], most: int | None = None) -> Plan:
        """Look who would get what; changes nothing.

        Args:
            shares: people with their weights.
            most: tasks altogether, the first ones; None for all.

        Raises:
            TatorError: Label Studio does not answer, or nothing is left to hand out.
        """
        packages = self._open()
        held = {task for package in packages for task in package.tasks}
        with open_bulk(self._settings) as api:
            unlabelled = _numbers(api.tasks(self._project, "id", query=json.loads(UNLABELLED)))
            drafts = drafted(api, self._project)
        free = sorted(unlabelled - held - drafts)
        if not free:
            raise TatorError("No task is left to hand out: all are labelled, begun, or in somebody's package.")
        parts = divide(free[:most], shares)
        return Plan(
            self._project,
            tuple((person, tasks) for person, tasks in parts if tasks),
            len(unlabelled & drafts - held),
            len(unlabelled & held),
        )

    def hand_out(self, shares: Sequence[Share], most: int | None = None, signature: str | None = None) -> list[Package]:
        """Make a tab for each person.

        Args:
            shares: people with their weights.
            most: tasks altogether.
            signature: of the plan that was looked at; None to hand out whatever there is now.

        Raises:
            TatorError: Label Studio does not answer, or the plan would be another one by now.
        """
        with alone(self._records.lock(self._project), BUSY):
            there = self._open()
            for gone in set(self._records.of(self._project)) - set(there):
                self._records.forget(gone)
            plan = self.plan(shares, most)
            if signature is not None and signature != plan.signature:
                raise TatorError("The tasks have changed since you looked; look again, then hand them out.")
            batch = secrets.token_hex(6)
            made = [Package.new(self._project, batch, person, tasks) for person, tasks in plan.parts]
            everything = {task for one in [*there, *made] for task in one.tasks}
            for row, package in enumerate(made):
                self._records.keep(package)  # first: whatever is cut short can be taken back
                view = self._make_tab(package, everything - set(package.tasks))
                made[row] = replace(package, view=view)
                self._records.keep(made[row])
        return made

    def take_back(self, package_ids: Iterable[str]) -> list[Package]:
        """Delete exactly the tabs of some packages; annotations stay, and what is unlabelled is free again.

        Raises:
            TatorError: Label Studio does not answer.
        """
        wanted = set(package_ids)
        with alone(self._records.lock(self._project), BUSY):
            taken = [one for one in self._records.of(self._project) if one.id in wanted]
            tabs = self._tabs()
            studio: Any = open_studio(self._settings)
            for package in taken:
                number = _tab_of(package, tabs)
                if number is not None:
                    with sentences(self._settings.label_studio_url):
                        studio.views.delete(str(number))
                self._records.forget(package)
        return taken

    def standing(self) -> list[Standing]:
        """How far each package is.

        Raises:
            TatorError: Label Studio does not answer.
        """
        packages = self._records.of(self._project)
        if not packages:
            return []
        tabs = self._tabs()
        first, last = min(one.tasks[0] for one in packages), max(one.tasks[-1] for one in packages)
        query = json.loads(UNLABELLED)
        query["filters"]["items"].append(_between(first, last))
        with open_bulk(self._settings) as api:
            unlabelled = _numbers(api.tasks(self._project, "id", query=query))
        return [
            Standing(one, len(unlabelled.intersection(one.tasks)), _tab_of(one, tabs) is not None) for one in packages
        ]

    def _open(self) -> list[Package]:
        """Packages whose tab is there; whoever deletes a tab in Label Studio gives its tasks back."""
        packages = self._records.of(self._project)
        tabs = self._tabs() if packages else {}
        return [package for package in packages if _tab_of(package, tabs) is not None]

    def _tabs(self) -> Mapping[int, Mapping[str, Any]]:
        """The project's tabs by number, with what they hold."""
        studio: Any = open_studio(self._settings)
        with sentences(self._settings.label_studio_url):
            return {int(one.id): _data(one) for one in studio.views.list(project=self._project)}

    def _make_tab(self, package: Package, others: set[int]) -> int:
        items = [_between(first, last) for first, last in ranges(package.tasks, others)]
        data = {
            "title": package.title,
            "type": "list",
            "target": "tasks",
            "filters": {"conjunction": "or", "items": items},
            MARK: package.id,
        }
        studio: Any = open_studio(self._settings)
        with sentences(self._settings.label_studio_url):
            return int(studio.views.create(project=self._project, data=data).id)


def _between(first: int, last: int) -> dict[str, Any]:
    """A tab's filter by the numbers of tasks."""
    value = {"min": first, "max": last}
    return {"filter": "filter:tasks:id", "operator": "in", "type": "Number", "value": value}


def _tab_of(package: Package, tabs: Mapping[int, Mapping[str, Any]]) -> int | None:
    if package.view is not None:
        return package.view if package.view in tabs else None
    return next((number for number, data in tabs.items() if data.get(MARK) == package.id), None)


def _data(view: Any) -> Mapping[str, Any]:
    data = view.data
    return data if isinstance(data, Mapping) else dict(data or {})


def _numbers(tasks: Iterable[Mapping[str, Any]]) -> set[int]:
    return {int(task["id"]) for task in tasks}
