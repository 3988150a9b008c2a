"""Verbs of ``tator`` that learn from a project or go over it: ``train``, ``relabel``, ``tweak`` and others."""

from __future__ import annotations

import typer

from training.cli import polygons, qwen, relabel, train, tweak, warm


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    train.register(app)
    qwen.register(train.train)
    relabel.register(app)
    tweak.register(app)
    warm.register(app)
    polygons.register(app)
