"""Who labels in a project: which task each has in hand, and how much everybody did on which day.

Label Studio has no list of this. A task in hand is a draft; what was done is an annotation. Somebody who has opened a
task and drawn nothing yet has neither, and is not seen.
"""

from __future__ import annotations

import datetime
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from tator_sdk.bulk import BulkApi

MOST_DRAFTS = 100
MOST_TASKS = 2000
"""Of the newest, looked at for the counts; more would keep Label Studio busy for seconds."""
WITH_DRAFT: dict[str, Any] = {
    "filters": {
        "conjunction": "and",
        "items": [{"filter": "filter:tasks:draft_exists", "operator": "equal", "type": "Boolean", "value": True}],
    }
}


@dataclass(frozen=True)
class Seat:
    """What somebody did last.

    Attributes:
        person: their e-mail address.
        task: its number.
        at: seconds since the epoch.
        doing: ``labelling`` where a draft is open, ``submitted`` where it became an annotation.
    """

    person: str
    task: int
    at: float
    doing: Literal["labelling", "submitted"]


@dataclass(frozen=True)
class Activity:
    """Who labels in a project.

    Attributes:
        seats: the last thing that each person did in the days that are counted, the newest first.
        meetings: numbers of tasks that more than one person has a fresh draft of.
        days: submitted annotations by person and day (ISO date, UTC).
        whole: whether all were counted.
    """

    seats: tuple[Seat, ...]
    meetings: tuple[int, ...]
    days: Mapping[str, Mapping[str, int]]
    whole: bool


def look(api: BulkApi, project: int, now: float, minutes: float = 15.0, days: int = 7) -> Activity:
    """Ask Label Studio who labels in a project.

    Args:
        api: a connection.
        project: its number.
        now: seconds since the epoch.
        minutes: how long ago a draft may have been saved to count as being worked on.
        days: that are counted, today among them.

    Raises:
        StudioError: Label Studio refuses, or does not answer.
    """
    since = _midnight(now) - (days - 1) * 86400
    people = {int(one["id"]): str(one["email"]) for one in api.get("/api/users")}
    drafts = list(_drafts(api, project))
    fresh = [one for one in drafts if now - one.at <= 60 * minutes]
    done, counted = _annotations(api, project, since, people)
    latest = {one.person: one for one in sorted([*done, *drafts], key=lambda seat: seat.at) if one.at >= since}
    by_day: dict[str, Counter[str]] = defaultdict(Counter)
    for one in done:
        if one.at >= since:
            by_day[one.person][_day(one.at)] += 1
    holders = Counter(task for task, _ in {(one.task, one.person) for one in fresh})
    return Activity(
        tuple(sorted(latest.values(), key=lambda seat: -seat.at)),
        tuple(sorted(task for task, held in holders.items() if held > 1)),
        {person: dict(counts) for person, counts in sorted(by_day.items())},
        counted < MOST_TASKS and len(drafts) < MOST_DRAFTS,
    )


def days_until(now: float, days: int = 7) -> list[str]:
    """The ISO dates that are counted, the oldest first."""
    return [_day(now - 86400 * back) for back in reversed(range(days))]


def drafted(api: BulkApi, project: int) -> set[int]:
    """Numbers of the tasks that somebody has a draft of.

    Raises:
        StudioError: Label Studio refuses, or does not answer.
    """
    return {int(task["id"]) for task in api.tasks(project, "id", query=WITH_DRAFT)}


def _drafts(api: BulkApi, project: int) -> Iterator[Seat]:
    for task in islice(api.tasks(project, "id", query=WITH_DRAFT), MOST_DRAFTS):
        for draft in api.get(f"/api/tasks/{task['id']}/drafts"):
            yield Seat(str(draft["user"]), int(task["id"]), _epoch(draft["updated_at"]), "labelling")


def _annotations(api: BulkApi, project: int, since: float, people: Mapping[int, str]) -> tuple[list[Seat], int]:
    """What was submitted since then, and how many tasks were looked at."""
    at = datetime.datetime.fromtimestamp(since, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    item = {"filter": "filter:tasks:completed_at", "operator": "greater", "type": "Datetime", "value": at}
    query = {"filters": {"conjunction": "and", "items": [item]}, "ordering": ["-tasks:completed_at"]}
    # names of fields hold for annotations as well: their regions are not sent
    fields = ("id", "annotations", "completed_by", "created_at", "was_cancelled")
    tasks = list(islice(api.tasks(project, *fields, query=query), MOST_TASKS))
    return [seat for task in tasks for seat in _submitted(task, people)], len(tasks)


def _submitted(task: Mapping[str, Any], people: Mapping[int, str]) -> Iterable[Seat]:
    for annotation in task.get("annotations") or []:
        if not annotation.get("was_cancelled"):
            person = _person(annotation.get("completed_by"), people)
            yield Seat(person, int(task["id"]), _epoch(annotation["created_at"]), "submitted")


def _person(completed_by: object, people: Mapping[int, str]) -> str:
    if isinstance(completed_by, Mapping):  # older releases send the whole account
        return str(completed_by.get("email") or completed_by.get("id"))
    return people.get(completed_by, f"user {completed_by}") if isinstance(completed_by, int) else "nobody"


def _epoch(moment: str) -> float:
    return datetime.datetime.fromisoformat(moment).timestamp()


def _day(epoch: float) -> str:
    return datetime.datetime.fromtimestamp(epoch, datetime.UTC).date().isoformat()


def _midnight(epoch: float) -> float:
    return epoch - epoch % 86400
