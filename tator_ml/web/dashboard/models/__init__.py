"""Models: which ones answer in a project, all versions there are, how good they are, and what to do with them.

- ``versions``: a model of whichever kind, as pages show it; ``catalogue`` has them all.
- ``comparison``: two versions side by side.
- ``looking``: the pages. ``changing``: what their buttons do.
"""

from __future__ import annotations

from flask import Blueprint

from tator_ml.web.dashboard.models import changing, looking
from tator_ml.web.dashboard.models.catalogue import Catalogue
from tator_ml.web.dashboard.page import Dashboard, Page

PAGE = Page("models", "Models")


def add(routes: Blueprint, dashboard: Dashboard) -> None:
    """Routes of the page and of those below it."""
    catalogue = Catalogue(dashboard.settings, dashboard.services.projects)
    looking.add(routes, dashboard, catalogue)
    changing.add(routes, dashboard, catalogue)
