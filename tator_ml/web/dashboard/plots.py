"""Plots as data: what Plotly draws in the browser (``static/plots.js``), and the same numbers as a table.

Macro ``plot`` in ``templates/dashboard/parts.html`` shows one; a page that has any loads the script by macro
``plot_script`` in its head. Colours are the sheet's own, in the light and in the dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tator_ml.web.dashboard.words import as_figure

MOST_POINTS = 600
"""A line of more is thinned evenly; its first and last points stay."""
MOST_ROWS = 60
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
"""Lines differ in more than their colour."""

X = float | str
"""A number, a category, or a moment as ``2026-11-27 10:06``."""
Numbers = Sequence[float | None]


@dataclass(frozen=True)
class Series:
    """One line of a plot, or one colour of its bars.

    Attributes:
        name: in the legend.
        x: where each value stands.
        y: values; None leaves a gap.
    """

    name: str
    x: Sequence[X]
    y: Numbers


@dataclass(frozen=True)
class Plot:
    """A plot with its table.

    Attributes:
        key: id on the page, of letters, digits and ``-``; a plot that is drawn again keeps its zoom by it.
        caption: what it shows, in a sentence or title.
        data, layout: as Plotly takes them (https://plotly.com/javascript/reference/).
        columns, rows: of the table.
        more: how many rows are left out of the table.
    """

    key: str
    caption: str
    data: list[dict[str, Any]] = field(hash=False)
    layout: dict[str, Any] = field(hash=False)
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    more: int = 0

    @property
    def figure(self) -> dict[str, Any]:
        """What the browser's script is given."""
        return {"data": self.data, "layout": self.layout}


def line_plot(
    key: str,
    caption: str,
    series: Sequence[Series],
    *,
    x: str,
    y: str = "",
    y_range: tuple[float, float] | None = None,
    unit: str = "",
    marks: bool = False,
) -> Plot:
    """Lines over a common axis.

    Args:
        key: see :class:`Plot`; ``caption`` likewise.
        caption: what it shows.
        series: one line each.
        x: title of the axis, and of the table's first column.
        y: title of the other axis.
        y_range: from where to where it reaches; by default as far as the values do.
        unit: after each value, as ``ms``.
        marks: mark each point, where they are few.
    """
    thin = [_thinned(one) for one in series]
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers" if marks or len(one.x) < 3 else "lines",
            "name": one.name,
            "x": list(one.x),
            "y": list(one.y),
            "line": {"dash": DASHES[place % len(DASHES)], "width": 2},
            "connectgaps": False,
        }
        for place, one in enumerate(thin)
    ]
    return _axes(key, caption, data, thin, x, y, y_range, unit)


def bar_plot(
    key: str,
    caption: str,
    series: Sequence[Series],
    *,
    x: str,
    y: str = "",
    y_range: tuple[float, float] | None = None,
    unit: str = "",
    stacked: bool = False,
) -> Plot:
    """Bars beside or upon each other; arguments as of :func:`line_plot`."""
    data = [{"type": "bar", "name": one.name, "x": list(one.x), "y": list(one.y)} for one in series]
    plot = _axes(key, caption, data, series, x, y, y_range, unit)
    plot.layout["barmode"] = "stack" if stacked else "group"
    return plot


def _axes(
    key: str,
    caption: str,
    data: list[dict[str, Any]],
    series: Sequence[Series],
    x: str,
    y: str,
    y_range: tuple[float, float] | None,
    unit: str,
) -> Plot:
    for trace in data:
        trace["hovertemplate"] = f"%{{y:.4~g}}{f' {unit}' if unit else ''}<extra>%{{fullData.name}}</extra>"
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": f"{y} ({unit})" if y and unit else y or unit}, "rangemode": "tozero"},
        "showlegend": len(series) > 1,
    }
    if y_range is not None:
        layout["yaxis"]["range"] = list(y_range)
    columns, rows = _table(series, x, unit)
    shown = _evenly(len(rows), MOST_ROWS)
    return Plot(key, caption, data, layout, columns, tuple(rows[place] for place in shown), len(rows) - len(shown))


def _table(series: Sequence[Series], x: str, unit: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """One row for each place on the axis, in the order of first sight."""
    values = [dict(zip(one.x, one.y, strict=True)) for one in series]
    places = list(dict.fromkeys(place for one in series for place in one.x))
    if all(isinstance(place, int | float) for place in places):
        places.sort()
    rows = [(_short(place), *(as_figure(one.get(place)) for one in values)) for place in places]
    return (x, *(f"{one.name} ({unit})" if unit else one.name for one in series)), rows


def _thinned(series: Series) -> Series:
    kept = _evenly(len(series.x), MOST_POINTS)
    return Series(series.name, [series.x[place] for place in kept], [series.y[place] for place in kept])


def _evenly(count: int, most: int) -> list[int]:
    """At most so many of ``count`` places, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(step * (count - 1) / (most - 1)) for step in range(most)]


def _short(value: X) -> str:
    return f"{value:g}" if isinstance(value, int | float) else value
