"""Data in and out: the registry, import and export, and what is done to the boxes of a whole project.

- ``sets``: the registry of data sets.
- ``uploads`` and ``receiving``: archives that somebody dropped onto the page, and how they come to the disk.
- ``importing``: what an upload holds, and what becomes of it.
- ``work``: forms of what jobs do with a project; ``results`` shows what came of them, with their undo.
- ``errands``: looks at data sets, in processes of their own.
"""

from __future__ import annotations

from flask import Blueprint

from tator_ml.web.dashboard.data import importing, results, sets, work
from tator_ml.web.dashboard.data.errands import Errands
from tator_ml.web.dashboard.data.parts import Data
from tator_ml.web.dashboard.data.uploads import Uploads
from tator_ml.web.dashboard.page import Dashboard, Page

PAGE = Page("data", "Data")


def add(routes: Blueprint, dashboard: Dashboard) -> None:
    """Routes of the page and of those below it."""
    settings = dashboard.settings
    data = Data(dashboard, Errands(settings), Uploads(settings))
    for module in (sets, importing, work, results):
        module.add(routes, data)
