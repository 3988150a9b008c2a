"""A real project, exported in every form and read back: annotations, predictions, uploads and local files."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from demo.labelled import LabelledProject, labelled_project
from demo.stack import DemoStack
from tator_sdk.auth import LabelStudioAuth
from tator_sdk.cli import datasets, exporting
from tator_sdk.datasets import DatasetRegistry
from tator_sdk.formats import open_dataset
from tator_sdk.formats.dataset import LabelledPicture, enclosing_xyxy
from tator_sdk.geometry import RotatedBox, iou_xyxy
from tator_sdk.regions import box_value, encode_rle, region
from tator_sdk.studio import open_studio
from tests.formats.material import same_shape
from training.starter.names import DISPLAY_NAMES

pytestmark = [pytest.mark.studio, pytest.mark.timeout(400)]

SEEDS = range(9_860_000, 9_860_012)
SKIPPED, UNLABELLED = 10, 11


@pytest.fixture(scope="module")
def project(stack: DemoStack) -> Iterator[LabelledProject]:
    names = sorted(DISPLAY_NAMES.values())
    with labelled_project(stack, "Export pictures", SEEDS, DISPLAY_NAMES.__getitem__, names) as made:
        made.annotate(made.tasks[:SKIPPED])
        made.studio.annotations.create(made.tasks[0].number, result=made.tasks[0].result()[:1])  # the newest counts
        made.studio.annotations.create(made.tasks[SKIPPED].number, result=[], was_cancelled=True)
        for task in made.tasks[8:]:
            made.studio.predictions.create(task=task.number, model_version="v7", score=0.5, result=task.result())
        yield made


def run(stack: DemoStack, *words: str | Path) -> str:
    """A verb, in this process: the SDK's import alone takes seconds."""
    app = typer.Typer()
    exporting.register(app)
    datasets.register(app)
    environment = {**stack.settings.environment(), "COLUMNS": "200"}
    done = CliRunner().invoke(app, [str(word) for word in words], env=environment)
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done.output


def read(path: Path) -> list[LabelledPicture]:
    with closing(open_dataset(path)) as reader:
        found = list(reader.pictures())
        assert not list(reader.strays()) and not any(one.bad for one in found)
        return found


def file_of(stack: DemoStack, number: int) -> bytes:
    return sorted((stack.folder.parent / "export-pictures").iterdir())[number].read_bytes()


@pytest.mark.parametrize("form", ["yolo", "yolo-seg", "yolo-obb", "coco"])
def test_annotations_in_every_form(stack: DemoStack, project: LabelledProject, tmp_path: Path, form: str) -> None:
    said = run(
        stack, "export", form, "--project", str(project.number), "--output", tmp_path / "out", "--val-share", "0.3"
    )
    assert "10 pictures" in said and "Written" in said and "Left out" not in said
    by_content = {one.path.read_bytes(): one for one in read(tmp_path / "out")}
    assert by_content.keys() == {file_of(stack, number) for number in range(SKIPPED)}
    assert {one.split for one in by_content.values()} == {"train", "val"}
    for number, task in enumerate(project.tasks[:SKIPPED]):
        found = by_content[file_of(stack, number)]
        boxes = task.boxes[:1] if number == 0 else task.boxes
        assert found.size_wh == task.size_wh
        assert Counter(one.label for one in found.shapes) == Counter(box.label for box in boxes)
        for box in boxes:
            assert (
                max(iou_xyxy(enclosing_xyxy(one.shape), box.xyxy) for one in found.shapes if one.label == box.label)
                > 0.99
            )
    record = DatasetRegistry(stack.settings.home).get(str(tmp_path / "out"))
    assert record.pictures == 10 and record.source["project"] == project.number
    assert "unchanged" in run(stack, "datasets", "show", record.id)


def test_predictions_of_a_version_and_a_dry_run(stack: DemoStack, project: LabelledProject, tmp_path: Path) -> None:
    words: list[str | Path] = [
        "export",
        "yolo",
        "-p",
        str(project.number),
        "-o",
        tmp_path / "out",
        "--predictions",
        "v7",
    ]
    said = run(stack, *words, "--dry-run")
    assert "4 pictures" in said and "dry run" in said and not (tmp_path / "out").exists()
    run(stack, *words, "--zip")
    with closing(open_dataset(tmp_path / "out.zip")) as reader:
        found = [(one.path.read_bytes(), len(one.shapes)) for one in reader.pictures()]
    assert dict(found) == {file_of(stack, 8 + place): len(task.boxes) for place, task in enumerate(project.tasks[8:])}


def test_all_annotations_crops_and_pictures_that_are_gone(
    stack: DemoStack, project: LabelledProject, tmp_path: Path
) -> None:
    gone = project.studio.tasks.create(project=project.number, data={"image": "/data/local-files/?d=nowhere.png"})
    try:
        project.studio.annotations.create(gone.id, result=[])
        words: list[Any] = ["--project", str(project.number), "--annotations", "all"]
        said = run(stack, "export", "crops", *words, "--output", tmp_path / "out")
        crops = list((tmp_path / "out").rglob("*.jpg"))
        boxes = sum(len(task.boxes) for task in project.tasks[:SKIPPED]) + 1
        assert len(crops) == boxes and f"{boxes} objects" in said
        assert "Left out: 1" in said and f"task {gone.id}: " in said
        labels = run(stack, "export", "coco", *words, "--output", tmp_path / "labels", "--no-images")
        assert not list((tmp_path / "labels").rglob("*.png")) and f"{boxes} objects" in labels
    finally:
        project.studio.tasks.delete(gone.id)


def test_an_uploaded_picture_with_turned_boxes_and_brushes(stack: DemoStack, tmp_path: Path) -> None:
    studio: Any = open_studio(stack.settings)
    config = (
        '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image"><Label value="Car"/>'
        '</RectangleLabels><BrushLabels name="brush" toName="image"><Label value="Road"/></BrushLabels></View>'
    )
    project = studio.projects.create(title="Uploaded", label_config=config)
    try:
        stream = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (120, 200), "teal").save(stream, "JPEG", exif=exif)
        key = stack.settings.label_studio_api_key
        assert key is not None
        auth = LabelStudioAuth(stack.settings.label_studio_url, key.get_secret_value())
        answer = httpx.post(
            f"{stack.settings.label_studio_url}/api/projects/{project.id}/import",
            files={"file": ("my cat.jpg", stream.getvalue(), "image/jpeg")}, auth=auth, timeout=60,
        )  # fmt: skip
        answer.raise_for_status()
        (task,) = list(studio.tasks.list(project=project.id))
        turned, mask = RotatedBox(100, 20, 50, 30, 25), np.zeros((120, 200), bool)
        mask[30:90, 20:80] = True
        mask[50:60, 40:50] = False
        shared: dict[str, Any] = {"to_name": "image", "size_wh": (200, 120)}
        result = [
            region(region_id="a", from_name="box", result_type="rectanglelabels", value=box_value(turned, (200, 120)),
                   labels=["Car"], **shared),
            region(region_id="b", from_name="brush", result_type="brushlabels", labels=["Road"],
                   value={"format": "rle", "rle": encode_rle(mask)}, **shared),
        ]  # fmt: skip
        studio.annotations.create(task.id, result=result)
        run(stack, "export", "yolo-obb", "-p", str(project.id), "-o", tmp_path / "obb", "--val-share", "0")
        (found,) = read(tmp_path / "obb")
        assert found.size_wh == (200, 120) and found.name.endswith("cat.jpg")
        assert same_shape(found.shapes[0].shape, turned, 0.5)
        run(stack, "export", "coco", "-p", str(project.id), "-o", tmp_path / "coco", "--val-share", "0")
        (found,) = read(tmp_path / "coco")
        assert same_shape(found.shapes[0].shape, turned, 0.5)
        road: Any = found.shapes[1].shape
        assert len(road.parts) == len(road.holes) == 1 and enclosing_xyxy(road) == (20, 30, 80, 90)
    finally:
        studio.projects.delete(project.id)
