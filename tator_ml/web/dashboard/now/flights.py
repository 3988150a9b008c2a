"""What is on its way to the device, as far as a visitor may see whose it is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tator_ml.engine.messages import Flight, Status
from tator_ml.last_hour import Latency
from tator_ml.web.access import Visitor

LANES = {
    "click": ("Clicks", "points, boxes and strokes of people at work; first of all"),
    "preload": ("Preloads", "pictures that are about to be opened"),
    "words": ("Words", "questions in words, and phrases"),
    "batch": ("Batches", "steps of jobs; last of all"),
}
"""Title and meaning of each lane, in the order of their turns."""
WHOSE = re.compile(r"(\d+)(?:/(\d+))?(?:/|$)")
PICTURE = re.compile(r"(\d+)/([0-9a-f]{64})$")


@dataclass(frozen=True)
class LaneView:
    """One lane.

    Attributes:
        title: its name for people; ``meaning`` what comes through it.
        waiting: requests that have not started.
        running: requests on the device.
        oldest_seconds: age of what waits longest; None where nothing does.
        latency: of the last hour, waiting included; None where nothing ended in it.
    """

    title: str
    meaning: str
    waiting: int
    running: int
    oldest_seconds: float | None
    latency: Latency | None


@dataclass(frozen=True)
class FlightView:
    """One request in flight.

    Attributes:
        lane: title of its lane.
        flight: as the engine tells of it.
        project, task: of Label Studio, where they are known and the visitor may see them.
        foreign: whether it is of a project that the visitor may not see.
    """

    lane: str
    flight: Flight
    project: int | None
    task: int | None
    foreign: bool


def lanes(status: Status) -> list[LaneView]:
    """All lanes, also empty ones."""
    running = [one.lane for one in status.flights if one.state == "running"]
    return [
        LaneView(
            title,
            meaning,
            status.waiting.get(name, 0),
            running.count(name),
            status.oldest_seconds.get(name) if status.waiting.get(name) else None,
            status.latencies.get(name),
        )
        for name, (title, meaning) in LANES.items()
    ]


def flights(status: Status, who: Visitor) -> list[FlightView]:
    """Everything in flight that the engine tells of, in its order."""
    return [_seen(one, who) for one in status.flights]


def whose(flight: Flight) -> tuple[int | None, int | None]:
    """Project and task of a request; None each where it does not say."""
    if found := PICTURE.match(flight.task):  # a preload's: its picture, which may be all digits, is no task
        return int(found[1]), None
    found = WHOSE.match(flight.task)
    return (int(found[1]), int(found[2]) if found[2] else None) if found else (None, None)


def _seen(flight: Flight, who: Visitor) -> FlightView:
    project, task = whose(flight)
    lane = LANES.get(flight.lane, (flight.lane, ""))[0]
    if who.may_see(project):
        return FlightView(lane, flight, project, task, False)
    return FlightView(lane, flight, None, None, True)
