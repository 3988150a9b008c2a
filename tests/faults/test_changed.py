"""What a model was trained on, or a picture was, is another one when it is used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tator_ml.engine.messages import Verdict
from tator_ml.images.fetch import ImageFetcher
from tator_ml.images.store import ImageStore
from tests.wire.conftest import (  # noqa: F401  fixtures
    Body,
    PictureServer,
    Running,
    answers,
    box,
    click,
    pictures,
    prompt,
    running,
    scene_bytes,
    settings,
)

SURE = Verdict("Ball", 0.97, (("Ball", 0.97), ("Box", 0.03)))


def labels_of(region: dict[str, Any]) -> list[str]:
    return list(region["value"]["rectanglelabels"])


@pytest.fixture
def project(box: Body) -> Body:  # noqa: F811
    """A loose box with a class that the head disagrees with."""
    box["label_config"] = (
        '<View><Image name="image" value="$image"/><RectangleLabels name="rect" toName="image" smart="true">'
        '<Label value="Ball"/><Label value="Box"/></RectangleLabels></View>'
    )
    prompt(box)["value"]["rectanglelabels"] = ["Box"]
    return box


def test_a_class_that_the_configuration_lost_is_not_answered(running: Running, project: Body) -> None:  # noqa: F811
    running.classifier.verdict = SURE
    assert labels_of(answers(running, project)) == ["Ball"]
    project["label_config"] = project["label_config"].replace('<Label value="Ball"/>', "")
    assert labels_of(answers(running, project)) == ["Box"], "removed: the person's own label stays"
    project["label_config"] = project["label_config"].replace('value="Box"', 'value="Crate"')
    prompt(project)["value"]["rectanglelabels"] = ["Crate"]
    assert labels_of(answers(running, project)) == ["Crate"], "renamed: the person's own label stays"


def test_a_tag_that_was_renamed_takes_the_answer(running: Running, project: Body) -> None:  # noqa: F811
    running.classifier.verdict = SURE
    project["label_config"] = project["label_config"].replace('name="rect"', 'name="outline"')
    prompt(project)["from_name"] = "outline"
    project["params"]["context"]["result"] = [prompt(project)]
    region = answers(running, project)
    assert region["from_name"] == "outline" and labels_of(region) == ["Ball"]


def test_a_picture_that_was_exchanged_is_another_picture(
    running: Running,  # noqa: F811
    pictures: PictureServer,  # noqa: F811
    project: Body,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = running.services.images.fetch("/picture")
    answers(running, project)
    pictures.answers["/picture"] = (200, scene_bytes(size_wh=(800, 600)))
    assert running.services.images.fetch("/picture") == before, "it was looked at a moment ago"
    images: Any = running.services.images
    images._settings = images._settings.model_copy(update={"image_recheck_seconds": 0.0})
    region = answers(running, project)
    assert (region["original_width"], region["original_height"]) == (800, 600)
    assert running.services.images.fetch("/picture").image != before.image
    assert before.image in ImageStore(running.services.settings.home / "images", 2**30), "what it was is kept, too"


def test_a_picture_file_that_is_damaged_is_fetched_again(
    running: Running,  # noqa: F811
    click: Body,  # noqa: F811
) -> None:
    fetcher = running.services.images
    assert isinstance(fetcher, ImageFetcher)
    ref = fetcher.fetch("/picture")
    path: Path = running.services.settings.home / "images" / ref.image
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], bytes(len(whole)), b""):
        path.write_bytes(damaged)
        running.predict(click)
        running.predict(click)  # the first says that it is damaged, and forgets it
        assert running.error() is None or path.read_bytes() == whole
        running.services.notices.answered(1, "", True)
        answers(running, click)
        fetcher.forget(replace(ref))
        assert fetcher.fetch("/picture") == ref and path.read_bytes() == whole
