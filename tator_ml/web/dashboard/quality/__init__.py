"""What people did with the suggestions, labels that look wrong, and what assistance is worth."""

from __future__ import annotations

from flask import Blueprint

from tator_ml.web.dashboard.page import Dashboard, Page
from tator_ml.web.dashboard.quality import comparison, crops, examples, labels, overview
from tator_ml.web.dashboard.quality.shown import PAGE

__all__ = ["PAGE", "Page", "add"]


def add(routes: Blueprint, dashboard: Dashboard) -> None:
    """Routes of the page, and of those below it."""
    for part in (overview, examples, labels, comparison, crops):
        part.add(routes, dashboard)
