"""Verbs of ``tator`` that learn from a project or go over it: ``train``, ``relabel``, ``tweak`` and others."""

from __future__ import annotations

import typer

from tator_ml.cli.options import check_server_extra
from tator_ml.cli.sam3 import sam3 as sam3_models
from training.cli import polygons, prelabel, qwen, relabel, sam3, sam3_storage, train, tweak, warm


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    check_server_extra()
    train.register(app)
    qwen.register(train.train)
    sam3.register(train.train)
    sam3_storage.register(sam3_models)
    relabel.register(app)
    tweak.register(app)
    warm.register(app)
    polygons.register(app)
    prelabel.register(app)
