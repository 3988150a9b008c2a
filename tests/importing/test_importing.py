"""Data sets into a project: what becomes of pictures and shapes, and what is told of those that cannot come."""

from __future__ import annotations

import json
import math
import os
import zipfile
from pathlib import Path

import pytest

from tator_sdk.errors import TatorError
from tator_sdk.formats.dataset import DatasetError
from tator_sdk.studio import StudioError
from tests.fake_studio import FakeLabelStudio
from tests.formats.material import NAMES, folder, picture
from tests.importing.conftest import LABELS, LINE, Run


def addresses(studio: FakeLabelStudio) -> list[str]:
    return [task["data"]["image"] for task in studio.tasks.values()]


def results(studio: FakeLabelStudio) -> list[list[dict]]:
    return [[row["result"] for row in task["annotations"]] for task in studio.tasks.values()]


def test_pictures_become_tasks_and_shapes_annotations(studio: FakeLabelStudio, yolo: Path) -> None:
    report = Run(yolo, local_files=yolo.parent).report
    assert addresses(studio) == [
        f"/data/local-files/?d=set/images/{name}.png" for name in ("a", "b%20c", "d")
    ] and report.created == 3  # fmt: skip
    (first,), (second,), nothing = results(studio)
    assert nothing == [] and report.empty == 1
    box = {"x": 40.0, "y": 30.0, "width": 20.0, "height": 40.0, "rotation": 0, "rectanglelabels": ["Car"]}
    assert first[0]["value"] == box and (first[0]["original_width"], first[0]["original_height"]) == (200, 100)
    assert second[0]["type"] == "polygonlabels" and second[0]["value"]["polygonlabels"] == ["Van"]
    assert sorted(map(tuple, second[0]["value"]["points"])) == [(10, 10), (50, 10), (50, 60)]
    assert report.shapes.regions == {"Car": 1, "Van": 1}
    ids = [item["id"] for rows in results(studio) for row in rows for item in row]
    assert len(set(ids)) == 2


def test_again_adds_nothing_and_what_is_new_is_added(studio: FakeLabelStudio, yolo: Path) -> None:
    first = Run(yolo).report
    assert first.created == 3 and len(studio.uploads) == 3
    again = Run(yolo).report
    assert (again.created, again.there, again.id) == (0, 3, first.id) and len(studio.tasks) == 3
    folder(yolo, {"images/e.png": "", "labels/e.txt": LINE})
    more = Run(yolo).report
    assert (more.created, more.there) == (1, 3) and len(studio.uploads) == len(studio.tasks) == 4


def test_the_same_name_with_another_content_is_another_picture(studio: FakeLabelStudio, yolo: Path) -> None:
    Run(yolo)
    (yolo / "images" / "a.png").write_bytes(picture((100, 50)))
    assert Run(yolo).report.created == 1 and len(studio.tasks) == 4


def test_a_dry_run_says_it_all_and_changes_nothing(studio: FakeLabelStudio, yolo: Path, tmp_path: Path) -> None:
    folder(yolo, {"labels/a.txt": f"{LINE}\n9 0.5 0.5 0.1 0.1\n0 nan 0 1 1\n", "labels/lone.txt": LINE})
    dry = Run(yolo, dry_run=True)
    assert not studio.tasks and not studio.uploads and not (tmp_path / "home").exists()
    said = [(line.file.name, line.number) for line in dry.bad]
    assert said == [("a.txt", 2), ("a.txt", 3), ("lone.txt", 0)]
    real = Run(yolo)
    assert [str(line) for line in real.bad] == [str(line) for line in dry.bad]
    for name in ("pictures", "created", "empty", "nbytes", "bad"):
        assert getattr(dry.report, name) == getattr(real.report, name)
    assert dry.report.shapes == real.report.shapes and real.report.shapes.regions == {"Car": 1, "Van": 1}


def test_as_predictions(studio: FakeLabelStudio, yolo: Path) -> None:
    Run(yolo, target="predictions", model_version="detector-3")
    rows = [task["predictions"] for task in studio.tasks.values()]
    assert [[one["model_version"] for one in row] for row in rows] == [["detector-3"], ["detector-3"], []]
    assert results(studio) == [[], [], []]


def test_an_empty_picture_may_be_labelled_as_such(studio: FakeLabelStudio, yolo: Path) -> None:
    Run(yolo, empty_as_annotation=True)
    assert results(studio)[2] == [[]]


def test_a_url_prefix_needs_no_pictures_here(studio: FakeLabelStudio, tmp_path: Path) -> None:
    coco = {
        "images": [{"id": 1, "file_name": "x/1.jpg", "width": 200, "height": 100}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "bbox": [20, 10, 40, 50]}],
        "categories": [{"id": 5, "name": "car"}],
    }
    (tmp_path / "set.json").write_text(json.dumps(coco))
    report = Run(tmp_path / "set.json", kind="coco", url_prefix="https://pictures.example/all/").report
    assert addresses(studio) == ["https://pictures.example/all/x/1.jpg"] and report.created == 1
    assert results(studio)[0][0][0]["value"]["rectanglelabels"] == ["Car"]


def test_a_zip_is_uploaded_and_cannot_be_served(studio: FakeLabelStudio, yolo: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in yolo.rglob("*"):
            archive.write(path, path.relative_to(yolo))
    with pytest.raises(TatorError, match=r"unpack .*below"):
        Run(tmp_path / "set.zip", local_files=tmp_path)
    assert Run(tmp_path / "set.zip").report.created == 3 == len(studio.uploads)
    assert Run(tmp_path / "set.zip").report.there == 3


def test_pictures_outside_of_the_document_root_are_listed(studio: FakeLabelStudio, yolo: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    run = Run(yolo, local_files=tmp_path / "elsewhere")
    assert len(run.bad) == 3 and "lies outside of" in run.bad[0].reason and not studio.tasks


def test_a_project_without_local_storage_is_told(studio: FakeLabelStudio, yolo: Path) -> None:
    studio.storages = []
    assert "Local files storage" in Run(yolo, local_files=yolo.parent).report.notes[-1]


def test_pictures_that_came_otherwise_are_left_alone(studio: FakeLabelStudio, yolo: Path) -> None:
    task = {"data": {"image": "/data/local-files/?d=set/images/a.png"}}
    studio.answer("POST", "/api/projects/7/import", json.dumps([task]).encode())
    report = Run(yolo, local_files=yolo.parent).report
    assert (report.created, report.foreign) == (2, 1) and len(studio.tasks) == 3


@pytest.mark.parametrize("kind", ["RectangleLabels", "PolygonLabels", "BrushLabels", "EllipseLabels"])
def test_shapes_go_to_the_tags_that_there_are(studio: FakeLabelStudio, yolo: Path, kind: str) -> None:
    studio.config = (
        f'<View><Image name="image" value="$image"/><{kind} name="t" toName="image">{LABELS}</{kind}></View>'
    )
    report = Run(yolo).report
    (first,), (second,), _ = results(studio)
    assert {item["type"] for item in first + second} == {kind.lower()}
    changes = {
        "RectangleLabels": {"outlines became boxes": 1},
        "PolygonLabels": {"boxes became polygons": 1},
        "BrushLabels": {"boxes became masks": 1},
        "EllipseLabels": {"boxes became ellipses": 1, "outlines became ellipses": 1},
    }
    assert report.shapes.changed == changes[kind]
    if kind == "RectangleLabels":
        value = second[0]["value"]
        assert [value[name] for name in ("x", "y", "width", "height")] == [10, 10, 40, 50]


def test_a_plain_rectangle_has_its_label_beside_it(studio: FakeLabelStudio, yolo: Path) -> None:
    studio.config = (
        f'<View><Image name="image" value="$image"/><Rectangle name="draw" toName="image"/>'
        f'<Labels name="kind" toName="image">{LABELS}</Labels></View>'
    )
    Run(yolo)
    shape, label = results(studio)[0][0]
    assert (shape["from_name"], shape["type"]) == ("draw", "rectangle")
    assert (label["from_name"], label["value"]["labels"], label["id"]) == ("kind", ["Car"], shape["id"])


def test_an_oriented_box_keeps_its_rotation(studio: FakeLabelStudio, yolo: Path) -> None:
    folder(yolo, {"labels/a.txt": "0 0.25 0.3 0.45 0.5 0.4 0.7 0.2 0.5"})
    Run(yolo, kind="obb")
    value = results(studio)[0][0][0]["value"]
    turned = {key: value[key] for key in ("x", "y", "width", "height", "rotation")}
    side = 100 * math.hypot(0.2, 0.1)  # of pictures as wide as they are high
    assert turned == pytest.approx(
        {"x": 25, "y": 30, "width": side, "height": side, "rotation": math.degrees(math.atan(0.5))}, abs=1e-3
    )
    assert value["rectanglelabels"] == ["Car"]


def test_classes_that_no_tag_has_are_said_with_the_mend(studio: FakeLabelStudio, yolo: Path) -> None:
    studio.config = studio.config.replace('<Label value="Van"/>', "")
    report = Run(yolo).report
    assert report.shapes.missing == {"Van": 1} and report.created == 3
    assert '<Label value="Van"/>' in report.notes[0] and '"box"' in report.notes[0]
    assert results(studio)[1] == []  # nothing left to say about it: not labelled


def test_duplicated_stems_are_two_pictures(studio: FakeLabelStudio, yolo: Path) -> None:
    folder(yolo, {"images/a.jpg": ""})
    run = Run(yolo)
    assert run.report.created == 4 and "two pictures" in str(run.bad[0])


def test_missing_and_damaged_pictures_are_listed(studio: FakeLabelStudio, yolo: Path) -> None:
    (yolo / "images" / "a.png").unlink()
    (yolo / "images" / "d.png").write_bytes(b"no picture")
    run = Run(yolo)
    assert run.report.created == 1 and len(run.bad) == 2 == run.report.bad


def test_an_empty_data_set_is_a_sentence(studio: FakeLabelStudio, tmp_path: Path) -> None:
    folder(tmp_path / "set", {"classes.txt": NAMES})
    with pytest.raises(DatasetError, match="no pictures"):
        Run(tmp_path / "set")
    with pytest.raises(DatasetError, match="nothing at"):
        Run(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("", "configuration is empty"),
        ("<View></View>", "no labelling configuration with an <Image>.*tator label-config"),
        ('<View><Text name="t" value="$text"/></View>', "with an <Image>"),
        ('<View><Image name="image" value="$image"/></View>', "no tag with labels"),
        (
            '<View><Image name="i" value="$image"/><KeyPointLabels name="k" toName="i">'
            f"{LABELS}</KeyPointLabels></View>",
            "no tag with labels",
        ),
        (
            '<View><Image name="i" value="$a.b"/><RectangleLabels name="k" toName="i">'
            f"{LABELS}</RectangleLabels></View>",
            "only plain names",
        ),
    ],
)
def test_a_project_that_cannot_take_it(studio: FakeLabelStudio, yolo: Path, config: str, said: str) -> None:
    studio.config = config
    with pytest.raises(TatorError, match=said):
        Run(yolo)
    assert not studio.uploads


def test_a_project_that_does_not_exist(studio: FakeLabelStudio, yolo: Path) -> None:
    with pytest.raises(TatorError, match="Project 8 does not exist"):
        Run(yolo, project=8)


def test_a_refused_token(studio: FakeLabelStudio, yolo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio, "answer", lambda *_: (401, {}))
    with pytest.raises(StudioError, match="refuses the token"):
        Run(yolo)


def test_places_exclude_each_other(yolo: Path) -> None:
    with pytest.raises(ValueError, match="--local-files and --match exclude"):
        Run(yolo, local_files=yolo, match=True)


def test_a_refused_picture_does_not_take_the_others_with_it(studio: FakeLabelStudio, yolo: Path) -> None:
    studio.refused_names = {"b c.png"}
    report = Run(yolo).report
    assert (report.created, report.refused) == (2, 1) and "b c.png" in report.notes[-1]
    assert len(studio.uploads) == 2


def test_where_all_are_refused_it_stops(studio: FakeLabelStudio, yolo: Path) -> None:
    folder(yolo, {f"images/{number}.png": "" for number in range(60)})
    studio.refused_names = {".png"}
    with pytest.raises(StudioError, match="refuses all pictures"):
        Run(yolo)
    assert not studio.tasks


def test_a_name_that_is_no_utf_8_is_told_and_the_others_come(studio: FakeLabelStudio, yolo: Path) -> None:
    (yolo / "images" / os.fsdecode(b"stra\xdfe.png")).write_bytes((yolo / "images" / "a.png").read_bytes())
    for place in ({}, {"local_files": yolo.parent}, {"url_prefix": "https://host"}):
        run = Run(yolo, **place)
        assert run.report.created == 3 and [one.reason for one in run.bad] == ["its name is not UTF-8; rename it"]
        assert str(run.bad[0]).endswith("stra?e.png: its name is not UTF-8; rename it")
