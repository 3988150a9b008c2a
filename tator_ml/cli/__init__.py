"""The backend's verbs of the ``tator`` command."""

from __future__ import annotations

import typer

from tator_ml.cli import health, jobs, models, serving
from tator_ml.cli.options import check_server_extra


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    check_server_extra()
    serving.register(app)
    health.register(app)
    jobs.register(app)
    models.register(app)
