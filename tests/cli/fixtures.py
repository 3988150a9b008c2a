"""The verbs and a YOLO folder, for tests of any folder: a plugin, which tests/conftest.py names."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

from tests.cli.conftest import SHAPES, Tator, app
from training.starter.scenes import SceneSettings, draw_scene


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
