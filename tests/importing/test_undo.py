"""Matching tasks that are there, and taking an import back."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tator_sdk.cli import importing
from tator_sdk.errors import TatorError
from tator_sdk.import_undo import ImportUndo
from tator_sdk.picture_addresses import address_name, names_of_address
from tator_sdk.settings import Settings
from tests.fake_studio import FakeLabelStudio
from tests.formats.material import folder
from tests.importing.conftest import LINE, OUTLINE, Run


def tator(*words: str, answer: str | None = None) -> str:
    app = typer.Typer()
    app.callback()(lambda: None)
    importing.register(app)
    done = CliRunner().invoke(app, ["import", *words], input=answer, env={"COLUMNS": "300"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def annotations(studio: FakeLabelStudio) -> list[int]:
    return [len(task["annotations"]) for task in studio.tasks.values()]


def test_undo_removes_what_an_import_added_and_nothing_else(studio: FakeLabelStudio, yolo: Path) -> None:
    first = Run(yolo).report
    second = Run(yolo, local_files=yolo.parent).report
    assert len(studio.tasks) == 6
    said = tator("--undo", second.id, "--yes")
    assert "3 of 3" in said and len(studio.tasks) == 3 == len(studio.uploads)
    assert all(task["meta"]["tator"]["import"] == first.id for task in studio.tasks.values())
    assert "nothing of" in tator("--undo", second.id, "--yes")
    tator("--undo", first.id, "--yes")
    assert not studio.tasks and not studio.uploads
    again = Run(yolo).report
    assert again.created == 3 and again.id != first.id


@pytest.mark.parametrize(
    "change",
    [
        lambda task: task["annotations"].append({**task["annotations"][0], "import_id": None}),
        lambda task: task["annotations"][0].update(updated_at="2026-01-02T04:00:00.000000Z"),
        lambda task: task.update(drafts=[{"id": 1}]),
        lambda task: task.update(draft_exists=True),
        lambda task: task.update(comment_count=1),
    ],
)
def test_what_people_have_worked_on_stays(studio: FakeLabelStudio, yolo: Path, change) -> None:
    done = Run(yolo).report
    change(studio.tasks[1])
    said = tator("--undo", done.id, "--yes")
    assert list(studio.tasks) == [1] and len(studio.uploads) == 1
    assert "worked on 1 task since" in said and "2 of 3" in said


def test_what_people_do_while_it_asks_stays(studio: FakeLabelStudio, yolo: Path) -> None:
    undo = ImportUndo(Settings(), Run(yolo).report.id)
    found = undo.find()
    assert found.tasks == [1, 2, 3]
    studio.tasks[2]["drafts"] = [{"id": 1}]
    assert undo.delete(found).kept == [2] and list(studio.tasks) == [2]


def test_annotations_that_people_change_while_it_asks_stay(studio: FakeLabelStudio, yolo: Path) -> None:
    Run(yolo, target="predictions")
    folder(yolo, {"labels/d.txt": LINE})
    undo = ImportUndo(Settings(), Run(yolo, match=True).report.id)
    found = undo.find()
    assert found.annotations == [1, 2, 3] and found.kept == []
    studio.tasks[2]["annotations"][0]["updated_at"] = "2026-01-02T04:00:00.000000Z"
    studio.tasks[3]["annotations"].clear()
    done = undo.delete(found)
    assert (done.annotations, done.kept) == ([1], [2]) and annotations(studio) == [0, 1, 0]


def test_annotations_with_unsaved_changes_stay(studio: FakeLabelStudio, yolo: Path) -> None:
    """A draft goes with its annotation, whoever's it is: it is looked for twice, the last time right before."""
    Run(yolo, target="predictions")
    folder(yolo, {"labels/d.txt": LINE})
    undo = ImportUndo(Settings(), Run(yolo, match=True).report.id)
    studio.tasks[1]["draft_exists"], studio.drafts = True, {1}
    found = undo.find()
    assert (found.annotations, found.kept) == ([2, 3], [1])
    studio.drafts |= {3}
    done = undo.delete(found)
    assert (done.annotations, done.kept) == ([2], [1, 3]) and annotations(studio) == [1, 0, 1]


def test_no_undo_while_an_import_runs(studio: FakeLabelStudio, yolo: Path) -> None:
    done = Run(yolo).report
    folder(yolo, {"images/e.png": ""})

    def moments(now: str) -> None:
        undo = ImportUndo(Settings(), done.id)
        with pytest.raises(TatorError, match="into project 7"):
            undo.delete(undo.find())

    assert Run(yolo, moments=moments).report.created == 1 and len(studio.tasks) == 4


def test_it_asks_first(studio: FakeLabelStudio, yolo: Path) -> None:
    done = Run(yolo).report
    assert "Nothing was deleted" in tator("--undo", done.id, answer="n\n") and len(studio.tasks) == 3


def test_an_unknown_import_is_a_sentence(studio: FakeLabelStudio) -> None:
    with pytest.raises(TatorError, match="no record of import-7-000000000000"):
        tator("--undo", "import-7-000000000000")
    with pytest.raises(TatorError, match="is no id of an import"):
        tator("--undo", "../../etc")


def test_shapes_go_to_the_tasks_that_have_the_picture(studio: FakeLabelStudio, yolo: Path) -> None:
    Run(yolo, target="predictions")
    studio.tasks[3]["data"]["image"] = "http://elsewhere/other.png"
    run = Run(yolo, match=True)
    assert annotations(studio) == [1, 1, 0] and (run.report.created, run.report.unmatched) == (2, 1)
    assert "no task of the project" in run.bad[0].reason
    again = Run(yolo, match=True).report
    assert (again.created, again.there) == (0, 2) and annotations(studio) == [1, 1, 0]
    studio.tasks[2]["annotations"][0]["updated_at"] = "2026-01-02T04:00:00.000000Z"
    assert "stay: 2" in tator("--undo", again.id, "--yes") and annotations(studio) == [0, 1, 0]
    assert len(studio.tasks) == 3


def test_predictions_go_to_the_tasks_that_have_the_picture(studio: FakeLabelStudio, yolo: Path) -> None:
    Run(yolo, local_files=yolo.parent)
    other = studio.hold(1, "import")
    report = Run(yolo, match=True, target="predictions").report
    assert report.created == 2 and [one.task for one in studio.held] == [1, 1, 2]
    assert Run(yolo, match=True, target="predictions").report.there == 2 and len(studio.held) == 3
    assert "2 of 2" in tator("--undo", report.id, "--yes")
    assert [one.id for one in studio.held] == [other]


@pytest.mark.parametrize("target", ["annotations", "predictions"])
def test_of_two_pictures_of_one_name_the_second_is_told(studio: FakeLabelStudio, yolo: Path, target: str) -> None:
    Run(yolo)
    for task in studio.tasks.values():
        task["annotations"].clear()
    folder(yolo, {"images/val/a.png": "", "labels/val/a.txt": OUTLINE})
    folder(yolo, {"images/test/a.png": ""})
    run = Run(yolo, match=True, target=target)
    assert "the data set twice: a.png was taken" in run.bad[0].reason and run.report.unmatched == 1
    stored = studio.tasks[1]["annotations"] if target == "annotations" else [vars(one) for one in studio.held]
    assert [one["result"][0]["type"] for one in stored if one.get("task", 1) == 1] == ["rectanglelabels"]


def test_a_name_that_two_tasks_have_is_not_guessed(studio: FakeLabelStudio, yolo: Path) -> None:
    Run(yolo)
    Run(yolo, local_files=yolo.parent)
    run = Run(yolo, match=True)
    assert run.report.unmatched == 3 and "several tasks" in run.bad[0].reason


@pytest.mark.parametrize(
    ("address", "names"),
    [
        ("/data/local-files/?d=set/images/b%20c.png", ["b c.png"]),
        ("/data/local-files/?d=..%2F..%2Fetc%2Fpasswd", ["passwd"]),
        ("/data/upload/7/0a1b2c3d-a%20b.png", ["0a1b2c3d-a b.png", "a b.png"]),
        ("http://studio/data/upload/7/0a1b2c3d-a.png", ["0a1b2c3d-a.png", "a.png"]),
        ("https://host/x/b%20c.png?token=1", ["b c.png"]),
        ("https://host/x/0a1b2c3d-a.png?d=1", ["0a1b2c3d-a.png"]),
        ("s3://bucket/x/a.png", ["a.png"]),
        ("data:image/png;base64,AA/AA", []),
        ("https://host/", []),
    ],
)
def test_names_of_pictures(address: str, names: list[str]) -> None:
    assert sorted(names_of_address(address)) == names
    assert address_name(address) == (names or [""])[0]


def test_what_was_exported_finds_its_task_again(studio: FakeLabelStudio, yolo: Path) -> None:
    """Also where two uploads were of one name: an export has them as Label Studio does, with eight digits in front."""
    Run(yolo, target="predictions")
    Run(yolo, target="predictions", url_prefix="https://host")
    for path in sorted((yolo / "images").iterdir()):
        row = next(name for name in studio.uploads.values() if name.endswith(path.name))
        path.rename(path.with_name(row.rpartition("/")[2]))
        (yolo / "labels" / f"{path.stem}.txt").rename(yolo / "labels" / f"{row.rpartition('/')[2][:-4]}.txt")
    run = Run(yolo, match=True)
    assert (run.report.created, run.report.unmatched) == (2, 0) and annotations(studio) == [1, 1, 0, 0, 0, 0]


def test_the_verb_says_what_happened(studio: FakeLabelStudio, yolo: Path) -> None:
    dry = tator("yolo", str(yolo), "--project", "7", "--dry-run")
    assert "3 pictures: would become a new task" in dry and "Nothing was changed" in dry and not studio.tasks
    said = tator("yolo", str(yolo), "-p", "7")
    assert "3 pictures: became a new task" in said and "1 picture without shapes" in said
    assert "tator import --undo import-7-" in said
    assert "3 pictures imported before" in tator("yolo", str(yolo), "-p", "7")
    with pytest.raises(TatorError, match="tator import yolo PATH --project N"):
        tator("yolo")
