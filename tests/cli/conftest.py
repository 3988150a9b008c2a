"""Heads without an encoder, and the application that holds all verbs; fixtures are in fixtures.py."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import typer

from tator_ml.engine.crops import CropRecipe
from tator_ml.engine.head import Head
from tator_sdk.cli import load_commands

SHAPES = ("disc", "star", "cross", "heart")

Tator = Callable[..., str]


@functools.cache
def app() -> typer.Typer:
    """All verbs; loaded once, as each loading adds them again."""
    return load_commands()


def head(*classes: str, seed: int = 0) -> Head:
    """A head of random weights."""
    weight = np.random.default_rng(seed).normal(size=(len(classes), 8)).astype(np.float32)
    return Head(
        classes, weight, np.zeros(len(classes), np.float32), 1.25, 0.7, 0.15, "starter-clip-0", CropRecipe(), "new"
    )


def report(*classes: str, active: float | None = None, activate: bool = True, **more: Any) -> dict[str, Any]:
    """What a training writes down; the second class is taken for the first three times."""
    count = len(classes)
    counts = (np.eye(count, dtype=int) * 5).tolist()
    counts[1][0] = 3
    rows = [{"class": name, "precision": 0.5, "recall": 1.0, "f1": 0.9, "support": 5} for name in classes]
    held_out = {"boxes": 5 * count + 3, "macro_f1": 0.875, "accuracy": 0.9, "per_class": rows, "confusion": counts}
    gate = {
        "activate": activate, "reason": "its macro-F1 of 0.875 is what it is", "candidate": 0.875, "active": active,
        "majority": 0.2, "luck": 0.4, "boxes": 5 * count + 3, "images": 4, "active_version": "head-before",
    }  # fmt: skip
    metrics = {"held_out": held_out, "training": {"boxes": 77, "images": 20, "macro_f1": 0.99, "iterations": 9}}
    metrics |= {"expected_precision": 0.953, "expected_answered": 0.88}  # type: ignore[dict-item]
    settings = {"project": 3, "solver": "lbfgs", "max_iter": 1000, "device": None}
    return {"request": settings, "metrics": metrics, "gate": gate, "notes": ["'Tram' is left out"], **more}
