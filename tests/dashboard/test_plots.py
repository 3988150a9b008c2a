"""Plots: what the browser is given to draw, and the same as a table."""

from __future__ import annotations

import json
import re

import plotly.graph_objects as go
from flask import g, render_template_string

from tator_ml.web.access import Visitor
from tator_ml.web.dashboard.plots import MOST_POINTS, MOST_ROWS, Series, bar_plot, line_plot
from tator_ml.web.dashboard.words import NOTHING

from .conftest import Site

TEMPLATE = '{% from "dashboard/parts.html" import plot, plot_script %}{{ plot_script() }}{{ plot(one) }}'


def test_each_kind_is_a_figure_that_plotly_takes() -> None:
    lines = [Series("train", [1, 2, 3], [0.5, None, 0.25]), Series("validation", [1, 3], [0.6, 0.4])]
    for one in (
        line_plot("loss", "Loss", lines, x="epoch", y="loss", y_range=(0, 1), unit="nats", marks=True),
        bar_plot("used", "Used", [Series("accepted", ["Star", "Moon"], [3, 4])], x="class", stacked=True),
    ):
        go.Figure(one.figure)  # raises for a name or value that plotly does not know


def test_the_table_has_each_place_once_with_gaps_marked() -> None:
    plot = line_plot("loss", "Loss", [Series("a", [3, 1], [0.5, 1.0]), Series("b", [2], [0.25])], x="epoch", unit="ms")
    assert plot.columns == ("epoch", "a (ms)", "b (ms)")
    assert plot.rows == (("1", "1.000", NOTHING), ("2", NOTHING, "0.250"), ("3", "0.500", NOTHING))


def test_long_lines_and_tables_are_thinned_and_keep_their_ends() -> None:
    many = list(range(5000))
    plot = line_plot("long", "Long", [Series("a", many, [float(one) for one in many])], x="step")
    x = plot.data[0]["x"]
    assert len(x) == MOST_POINTS and (x[0], x[-1]) == (0, 4999) and x == sorted(x)
    assert len(plot.rows) == MOST_ROWS and plot.more == MOST_POINTS - MOST_ROWS


def test_a_name_cannot_leave_the_figure(site: Site) -> None:
    named = "</script><script>alert(1)</script>"
    plot = line_plot("p", named, [Series(named, [1], [2.0])], x=named)
    with site.client.application.test_request_context("/tator/now"):
        g.visitor = Visitor("anybody")
        html = render_template_string(TEMPLATE, one=plot)
    assert "<script>alert" not in html
    found = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', html)
    assert found is not None and json.loads(found[1])["data"][0]["name"] == named
