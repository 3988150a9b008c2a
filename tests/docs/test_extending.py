"""The package of docs/extending.md, written as the page has it, installed, chosen, clicked and trained with."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tator_ml.engine.encoders import EncoderError
from tator_ml.engine.encoders import load as load_encoder
from tator_ml.engine.encoders import names as encoder_names
from tator_ml.engine.installed import installed
from tator_ml.engine.loading import load_engine
from tator_ml.engine.messages import Ask, EngineError, Prompt
from tator_ml.engine.named import all_segmenters
from tator_ml.engine.segmenters import UnknownSegmenter, names
from tator_ml.images.store import ImageStore
from tator_ml.projects import Projects
from tator_sdk.geometry import iou_xyxy
from tator_sdk.settings import Settings
from tests.cli.conftest import Tator
from tests.docs import material
from tests.docs.commands import ROOT
from tests.wire.conftest import scene_bytes
from training.starter.scenes import SceneSettings, draw_scene

PAGE = ROOT / "docs" / "extending.md"
OBJECT = (192.0, 120.0, 320.0, 264.0)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The page's three files, installed by the page's own command into a folder of this test's."""
    folder = tmp_path_factory.mktemp("reader")
    material.package_of_the_page(folder)
    (command,) = re.findall(r"^\.venv/bin/(pip install .*)$", PAGE.read_text(), re.M)
    words = [sys.executable, "-m", *command.split(), "--quiet", "--no-index", "--no-deps", "--target", "site"]
    subprocess.run(words, cwd=folder, check=True)
    sys.path.insert(0, str(folder / "site"))
    importlib.invalidate_caches()
    installed.cache_clear()
    yield folder
    sys.path.remove(str(folder / "site"))
    for name in ("colour_segmenter", "hog_encoder"):
        sys.modules.pop(name, None)
    installed.cache_clear()


def test_a_click_and_a_loose_box_are_answered_by_the_page_s_segmenter(package: Path, tmp_path: Path) -> None:
    assert "colour" in names()
    settings = Settings(home=tmp_path, segmenter="colour", encoder="hog", device="cpu", offline=True)
    engine = load_engine(settings)
    try:
        image = ImageStore(tmp_path / "images", 10**9).put(scene_bytes())
        click = engine.answer(Ask(image, (Prompt(((256.0, 192.0),), (True,)),)))
        box = engine.answer(Ask(image, (Prompt(box_xyxy=(180.0, 105.0, 335.0, 280.0)),)))
        nothing = engine.answer(Ask(image, (Prompt(((256.0, 192.0), (250.0, 190.0)), (True, False)),)))
    finally:
        engine.close()
    for answer in (click, box):
        assert answer.model_version.startswith("colour-1")
        assert answer.found[0] is not None and iou_xyxy(answer.found[0].xyxy, OBJECT) > 0.95
    assert nothing.found[0] is None, "what is refused is not what was clicked"


def test_it_finds_shapes_of_one_colour_in_generated_scenes(package: Path) -> None:
    colour = all_segmenters(Settings(offline=True), "cpu").get("colour")
    from tator_ml.engine.refine import segment_points

    found = []
    for seed in range(6):
        scene = draw_scene(seed, SceneSettings(size_wh=(256, 256), camouflage=0))
        embedding = colour.encode(scene.image)
        for one in scene.objects:
            x0, y0, x1, y1 = one.xyxy
            segment = segment_points(colour, embedding, Prompt((((x0 + x1) / 2, (y0 + y1) / 2),), (True,)))
            found.append(0.0 if segment is None else iou_xyxy(segment.xyxy, one.xyxy))
    assert sum(found) / len(found) > 0.3, "textures defeat it, plain shapes do not"


def test_a_project_may_choose_it_and_the_encoder_teaches_a_head(
    package: Path,
    tmp_path: Path,
    tator: Tator,
    yolo: Path,
) -> None:
    chosen = Projects(tmp_path / "projects").choose(3, segmenter="colour")
    assert chosen.segmenter == "colour"
    assert "hog" in encoder_names() and load_encoder("hog").dim == 1764
    said = tator("train", "clip", "--here", "--images-path", yolo / "images", "--encoder", "hog")
    (version,) = re.findall(r"head-\d+", tator("models", "list"))[:1]
    assert "hog-1" in tator("models", "show", version), said


def test_without_the_package_the_name_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    installed.cache_clear()
    with pytest.raises(UnknownSegmenter, match="choose one of starter"):
        Projects(tmp_path).choose(3, segmenter="hue")
    with pytest.raises(UnknownSegmenter):
        Projects(tmp_path).choose(3, segmenter="colour_segmenter:load")


def test_one_that_fails_says_so_in_a_sentence(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ValueError("no such layer")

    monkeypatch.setattr(importlib.import_module("colour_segmenter"), "load", fails)
    monkeypatch.setattr(importlib.import_module("hog_encoder"), "load", fails)
    with pytest.raises(EngineError, match="colour cannot be loaded: no such layer"):
        all_segmenters(Settings(offline=True), "cpu").get("colour")
    with pytest.raises(EncoderError, match="hog cannot be loaded: no such layer"):
        load_encoder("hog")
