"""Every setting: what holds, where it comes from, and how it is changed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import groupby

from flask import Blueprint, Response, render_template

from tator_ml.web.access import visitor
from tator_ml.web.dashboard.page import Dashboard, Page
from tator_sdk.env_file import env_example
from tator_sdk.settings_list import env_path, origins, settings_list, written

PAGE = Page("settings", "Settings", administrators=True)

AT_ONCE: Mapping[str, str] = {
    "warm_bytes": "At once, until the next start: the budget on the Now page, or tator budget 2G",
    "segmenter": "At once for one project: tator segmenter --project N NAME",
    "head": "At once for one project: the Models page, or tator models activate",
    "qwen_model_name": "At once for one project: the Models page, or tator models qwen activate",
    "sam3_model_id": "At once for one project: the Models page, or tator models sam3 activate",
    "preload": "At once for one project: the switch on its strip",
    "train_after": "At once for one project: tator models auto --project N",
}
"""What can be changed while Tator runs, and how; all else holds from the next start."""


def add(routes: Blueprint, dashboard: Dashboard) -> None:
    """Routes of the page."""

    @routes.get("/settings")
    def settings() -> str:
        visitor().require_administrator()
        where = origins(dashboard.settings, os.environ)
        rows = [
            {
                "setting": one,
                "value": written(getattr(dashboard.settings, one.field)),
                "origin": where[one.field],
                "at_once": AT_ONCE.get(one.field, ""),
            }
            for one in settings_list()
        ]
        sections = [(title, list(found)) for title, found in groupby(rows, key=lambda row: row["setting"].section)]  # type: ignore[union-attr]
        changed = [row for row in rows if row["origin"] != "default"]
        return render_template("dashboard/settings/page.html", sections=sections, changed=changed, file=env_path())

    @routes.get("/settings/env-example")
    def settings_env_example() -> Response:
        visitor().require_administrator()
        answer = Response(env_example(), mimetype="text/plain")
        answer.headers["Content-Disposition"] = 'attachment; filename="env.example"'
        return answer
