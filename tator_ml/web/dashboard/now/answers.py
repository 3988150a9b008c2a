"""How long answers took in the last hour: a table by lane and assist, and clicks by minute."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from tator_ml.last_hour import LastHour, Latency
from tator_ml.web.dashboard.now.flights import LANES
from tator_ml.web.dashboard.plots import Plot, Series, line_plot
from tator_ml.web.dashboard.words import as_moment

EVERY_SECONDS = 5.0
"""Percentiles of an hour change slowly; they are reckoned this often at most, whoever looks."""
FEWEST_MINUTES = 10
"""That the plot reaches back: around a single one, its axis would count in fractions of milliseconds."""
ASSISTS = {
    "points": "points",
    "boxes": "drawn boxes",
    "strokes": "brush strokes",
    "tweak": "tweaks",
    "text": "words",
    "exemplars": "examples",
    "opened": "a task opened",
    "batch": "several tasks at once",
    "withheld": "tasks without assistance",
    "event": "other events",
}


@dataclass(frozen=True)
class AnswerRow:
    """One row of the table: a lane and what was asked for."""

    lane: str
    assist: str
    latency: Latency


class Answers:
    """Reckons now and then, for everybody."""

    def __init__(self, hour: LastHour) -> None:
        self._hour = hour
        self._lock = threading.Lock()
        self._until = float("-inf")
        self._table: tuple[AnswerRow, ...] = ()
        self._plot: Plot | None = None

    def table(self) -> tuple[AnswerRow, ...]:
        """Lanes and assists that were asked in the last hour."""
        self._reckon()
        return self._table

    def plot(self) -> Plot | None:
        """Clicks by minute; None where there were none."""
        self._reckon()
        return self._plot

    def _reckon(self) -> None:
        with self._lock:
            if time.monotonic() < self._until:
                return
            self._table = tuple(
                AnswerRow(LANES.get(lane, (lane, ""))[0], ASSISTS.get(assist, assist), latency)
                for (lane, assist), latency in sorted(self._hour.by_kind().items(), key=_in_turn)
            )
            self._plot = _plotted(self._hour.by_minute("click"))
            self._until = time.monotonic() + EVERY_SECONDS


def _in_turn(row: tuple[tuple[str, str], Latency]) -> tuple[int, int]:
    (lane, _), latency = row
    return (list(LANES).index(lane) if lane in LANES else len(LANES), -latency.count)


def _plotted(minutes: dict[int, Latency]) -> Plot | None:
    if not minutes:
        return None
    # a minute without clicks is a gap, not a line across it
    places = range(min(minutes), max(minutes) + 1)
    x = [as_moment(60 * minute) for minute in places]
    lines = [
        Series(name, x, [None if minute not in minutes else 1000 * getattr(minutes[minute], of) for minute in places])
        for name, of in (("median", "p50"), ("95th percentile", "p95"))
    ]
    plot = line_plot("minutes-clicks", "Clicks by minute", lines, x="UTC", y="until the answer", unit="ms", marks=True)
    begin, end = min(places[0], places[-1] - FEWEST_MINUTES), places[-1] + 1
    plot.layout["xaxis"]["range"] = [as_moment(60 * begin), as_moment(60 * end)]
    return plot
