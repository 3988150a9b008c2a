"""A YOLO folder of drawn scenes, heads without an encoder, and Redis for the verbs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from tator_ml.engine.crops import CropRecipe
from tator_ml.engine.head import Head
from tator_sdk.cli import load_commands
from tests.jobs.conftest import jobs, redis_url  # noqa: F401  fixtures
from training.starter.scenes import SceneSettings, draw_scene

SHAPES = ("disc", "star", "cross", "heart")

Tator = Callable[..., str]


@functools.cache
def app() -> typer.Typer:
    """All verbs; loaded once, as each loading adds them again."""
    return load_commands()


@pytest.fixture
def tator() -> Tator:
    """Runs a verb in this process; returns what it printed, errors included."""

    def run(*words: str | Path, code: int = 0) -> str:
        done = CliRunner().invoke(app(), [str(word) for word in words], env={"COLUMNS": "140"})
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, done.output
        return done.output

    return run


@pytest.fixture(scope="session")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``images``, ``labels`` and ``labelmap.txt``: 40 small scenes of four shapes."""
    folder = tmp_path_factory.mktemp("yolo")
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    (folder / "labelmap.txt").write_text("".join(f"{shape}\n" for shape in SHAPES))
    settings = SceneSettings(size_wh=(160, 160), max_side=90, camouflage=0)
    for seed in range(40):
        scene = draw_scene(seed, settings)
        cv2.imwrite(str(folder / "images" / f"{seed:02}.png"), scene.image[..., ::-1])
        lines = [
            f"{SHAPES.index(one.shape)} {(x0 + x1) / 320} {(y0 + y1) / 320} {(x1 - x0) / 160} {(y1 - y0) / 160}\n"
            for one in scene.objects
            if one.shape in SHAPES
            for x0, y0, x1, y1 in [one.xyxy]
        ]
        (folder / "labels" / f"{seed:02}.txt").write_text("".join(lines))
    return folder


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
