"""Phrases and examples in the real editor, kept phrases and a whole project: found by a SAM 3 that knows the scene."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from demo.pictures import SETTINGS, TruthObject, truth_of
from demo.stack import DemoStack
from label_config.build import build
from tator_ml.learning.stores import project_choices
from tator_ml.projects import KeptWords
from tator_sdk.auth import LabelStudioAuth
from tator_sdk.connect import Connection, strip_url
from tator_sdk.geometry import iou_xyxy
from tator_sdk.studio import open_studio
from tests.taught_sam3 import LOOSELY, teach
from training.cli import prelabel as prelabel_cli
from training.samples import Labelled, Sample

from .editor import EXAMPLE, Editor, corners, loosely
from .test_accepting import new_task
from .test_commands import Prompted, enter

pytestmark = [pytest.mark.browser, pytest.mark.studio, pytest.mark.timeout(600)]

MODEL = "sam3-taught"


@pytest.fixture(scope="module")
def taught(stack: DemoStack) -> Iterator[Prompted]:
    """A project whose SAM 3 knows one scene by heart, with several objects of one class, and that scene."""
    studio: Any = open_studio(stack.settings)
    data = min((task.data for task in studio.tasks.list(project=stack.project)), key=lambda one: _plain(stack, one))
    picture = stack.folder / Path(data["image"]).name
    truth, pixels = truth_of(picture), np.asarray(Image.open(picture).convert("RGB"))
    objects = tuple(Labelled(one.label, one.xyxy, one.point) for one in truth)
    teach(
        stack.settings.home / "sam3" / MODEL / "model", Sample(picture.name, lambda: pixels, SETTINGS.size_wh, objects)
    )
    project = int(studio.projects.create(title="Concepts", label_config="<View/>").id)
    strip = strip_url(stack.settings, stack.settings.backend_url, project)
    labels = list(dict.fromkeys(one.label for one in truth))
    studio.projects.update(project, label_config=build("sam3", labels, strip, project=project))
    for _ in Connection(stack.settings, project, stack.settings.backend_url).run():
        pass
    project_choices(stack.settings).choose(project, assists=("refine",), output="box")
    project_choices(stack.settings).activate(project, MODEL, "person", role="sam3")
    yield Prompted(project, studio, data, truth)
    studio.projects.delete(project)


def _plain(stack: DemoStack, data: dict[str, Any]) -> tuple[bool, int]:
    """Scenes with several objects of one class come first, and of those the ones with few objects."""
    truth = truth_of(stack.folder / Path(data["image"]).name)
    return len({one.label for one in truth}) == len(truth), len(truth)


def several(truth: list[TruthObject]) -> list[TruthObject]:
    """The objects of the class that there are most of."""
    ((label, _),) = Counter(one.label for one in truth).most_common(1)
    return [one for one in truth if one.label == label]


def agree(stored: list[dict[str, Any]], truth: list[TruthObject], least: float = 0.8) -> bool:
    """Whether each object has one region of its label, and nothing else is there."""
    best = [
        max(iou_xyxy(one.xyxy, corners(each)) for each in stored if each["value"]["rectanglelabels"] == [one.label])
        for one in truth
    ]
    return len(stored) == len(truth) and min(best) > least


def test_a_phrase_and_an_example_find_all_alike(stack: DemoStack, page: Any, taught: Prompted) -> None:
    from playwright.sync_api import expect

    alike = several(taught.truth)
    label = alike[0].label
    editor = Editor(page, stack, new_task(taught.studio, taught.project, taught.data), taught.project)
    enter(editor, label.lower())
    assert len(editor.suggested) == len(alike) and all(one["score"] > 0.5 for one in editor.suggested)
    expect(editor.strip()).to_contain_text(f"{len(alike)} {label} in")
    editor.accept()
    with editor.draft_with(editor.regions()[0]["id"]):
        pass
    enter(editor, label)
    assert editor.suggested == [], "what was accepted is not offered again"
    editor.submit()
    assert agree(taught.stored(editor.task), alike)

    editor = Editor(page, stack, new_task(taught.studio, taught.project, taught.data), taught.project)
    editor.tool(EXAMPLE)
    editor.label(label, EXAMPLE)
    editor.drag(loosely(alike[0].xyxy, LOOSELY))
    assert len(editor.suggested) == len(alike) and {one["from_name"] for one in editor.suggested} == {"example"}
    assert any("like the drawn box" in line for one in editor.suggested for line in one["meta"]["text"])
    expect(editor.strip()).to_contain_text(f"{len(alike) - 1} more {label} like the drawn")
    editor.accept()
    editor.submit()
    assert agree(taught.stored(editor.task), alike)


def tator(stack: DemoStack, monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    for name, value in stack.settings.environment().items():
        monkeypatch.setenv(name, value)
    app = typer.Typer()
    app.callback()(lambda: None)
    prelabel_cli.register(app)
    done = CliRunner().invoke(app, ["prelabel", "sam3", *words], env={"COLUMNS": "200"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_kept_phrases_and_a_whole_project(stack: DemoStack, taught: Prompted, monkeypatch: pytest.MonkeyPatch) -> None:
    studio, project, choices = taught.studio, taught.project, project_choices(stack.settings)
    task = new_task(studio, project, taught.data)
    choices.choose(project, words=KeptWords(""))
    address = f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}"
    chosen = {"selectedItems": {"all": False, "included": [task]}}
    token = stack.settings.label_studio_api_key
    auth = LabelStudioAuth(stack.studio.url, token.get_secret_value() if token else "")
    with httpx.Client(base_url=stack.studio.url, auth=auth, timeout=60) as web:
        web.post(address, json=chosen).raise_for_status()
    (kept,) = studio.predictions.list(project=project)
    assert kept.task == task and agree(kept.result, taught.truth) and "/words-" in kept.model_version
    choices.choose(project, words=None)
    studio.predictions.delete(kept.id)
    number = str(project)
    assert f"{len(taught.truth)} objects in 1 of 1 tasks" in tator(stack, monkeypatch, "-p", number, "--dry-run")
    assert not list(studio.predictions.list(project=project))
    said = tator(stack, monkeypatch, "-p", number)  # a worker lives: it takes the job
    (held,) = studio.predictions.list(project=project)
    assert held.task == task and agree(held.result, taught.truth) and held.model_version.startswith(MODEL)
    job = said.split("--undo ")[-1].strip()
    assert f"1 of {job}" in tator(stack, monkeypatch, "--undo", job, "--yes")
    assert not list(studio.predictions.list(project=project))
