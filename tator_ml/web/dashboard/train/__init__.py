"""Train: what a training learns from, all of its settings, a look before it begins, and how the last ones went.

- ``sources``: projects and data sets that somebody may learn from.
- ``asking``: the form of one kind of training, and the request that it makes.
- ``pages``: the routes.
"""

from __future__ import annotations

from tator_ml.web.dashboard.page import Page
from tator_ml.web.dashboard.train.pages import add

__all__ = ["PAGE", "add"]

PAGE = Page("train", "Train")
