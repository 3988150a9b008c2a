"""Boxes of a project tightened: what is offered, what is written, what is left, and how it goes on after a crash."""

from __future__ import annotations

import copy
import json
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tator_ml.engine.client import EngineAway
from tator_ml.engine.messages import Ask, Verdict
from tator_ml.engine.refine import Guard, Segment, objections
from tator_ml.images.decode import ImageError
from tator_ml.images.fetch import ImageRef
from tator_ml.learning.stores import image_store
from tator_ml.prompts.tweaking import KEPT, kept_because
from tator_sdk.errors import TatorError
from tator_sdk.requests import Tweak
from tator_sdk.settings import Settings
from tator_sdk.studio import StudioError
from tests.tweak.conftest import EMPTY, LOOSE, LOOSER, POLYGON, PROJECT, SECOND, TRUTH, FakeStudio, Pager, Toy, box
from tests.wire.conftest import scene_bytes
from training.job import JobCancelled, LocalJob
from training.journal import Journal, lines_of
from training.sweep import Patient
from training.tweak.apply import CHANGES_FILE
from training.tweak.job import tweak
from training.tweak.undo import restore

GEOMETRY = ("x", "y", "width", "height")


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


def near(region: dict[str, Any], place: dict[str, float]) -> bool:
    return all(abs(region["value"][key] - place[key]) < 0.3 for key in GEOMETRY)


def ask(**more: Any) -> Tweak:
    return Tweak(project=PROJECT, **more)


@pytest.fixture
def run(settings: Settings, toy: Toy, job: LocalJob) -> Any:
    return lambda **more: tweak(ask(**more), settings, job, toy.engine)


def test_predictions_stand_beside_the_annotations(studio: FakeStudio, run: Any, job: LocalJob) -> None:
    studio.annotate([box("a"), box("b", "Cup", SECOND), box("c", "Ball", EMPTY), POLYGON])
    studio.annotate([box("d", "Cup", SECOND)])
    before = copy.deepcopy(studio.results)
    report = run()
    assert studio.results == before and not studio.writes
    assert set(studio.pushed) == {1}, "no prediction where nothing moves"
    moved, tight, kept, polygon = studio.pushed[1]["result"]
    assert moved["id"] == "a" and near(moved, TRUTH) and moved["score"] == pytest.approx(0.95)
    assert [tight, kept, polygon] == before[10][1:], "a person who takes the prediction loses nothing"
    assert studio.pushed[1]["model_version"] == report["model_version"] == f"bright-1/{job.id}"
    assert (report["boxes"], report["moved"], report["tight"], report["kept"]) == (4, 1, 2, 1)
    assert report["left"] == {"other shapes": 1} and report["why"] == {"nothing seen": 1}
    ball = report["classes"]["Ball"]
    assert (ball["boxes"], ball["moved"], ball["kept"]) == (2, 1, 1)
    iou = 20 * 30 / (24 * 34)
    assert ball["iou_moved"] == pytest.approx(iou, abs=0.01) and ball["iou"] == pytest.approx((1 + iou) / 2, abs=0.01)
    assert report["classes"]["Cup"]["iou"] == 1 and report["moved_most"][0]["region"] == "a"
    assert json.loads((job.folder / "report.json").read_text()) == report


def test_in_place_nothing_but_the_boxes_changes_and_undo_restores_every_one(
    studio: FakeStudio, run: Any, job: LocalJob, settings: Settings
) -> None:
    rated = {"id": "a", "from_name": "size", "to_name": "image", "type": "choices",
             "value": {**LOOSE, "rotation": 0, "choices": ["small"]}}  # fmt: skip
    relation = {"type": "relation", "from_id": "a", "to_id": "c", "direction": "right"}
    studio.annotate([box("a", meta={"text": ["mine"]}), rated, box("c", "Cup", SECOND), POLYGON, relation])
    studio.annotate([box("d", "Cup", SECOND)], [box("e", "Cup", LOOSER), box("f", "Ball", EMPTY)])
    before = copy.deepcopy(studio.results)
    report = run(in_place=True)
    assert report["changed"] == 2 and sorted(studio.writes) == [10, 21] and not studio.pushed
    for number, untouched in ((10, {2, 3, 4}), (21, {1})):
        for row, (old, new) in enumerate(zip(before[number], studio.results[number], strict=True)):
            if row in untouched:
                assert new == old
            else:
                assert near(new, TRUTH)
                assert {**new, "value": {**new["value"], **{key: old["value"][key] for key in GEOMETRY}}} == old
    undone = restore(settings, job.folder)
    assert (undone.restored, undone.there, undone.skipped) == (2, 0, [])
    assert studio.results == before
    again = restore(settings, job.folder)
    assert (again.restored, again.there) == (0, 2) and studio.results == before


def test_undo_leaves_what_people_changed_since_and_says_which(
    studio: FakeStudio, run: Any, job: LocalJob, settings: Settings
) -> None:
    for name in "abcd":
        studio.annotate([box(name)])
    before = copy.deepcopy(studio.results)
    run(in_place=True)
    studio.results[20][0]["value"]["x"] += 1
    del studio.results[30]
    studio.drafts.add(40)
    undone = restore(settings, job.folder)
    assert undone.restored == 1 and studio.results[10] == before[10]
    whys = {one["annotation"]: one["why"] for one in undone.skipped}
    assert set(whys) == {20, 30, 40} and "person changed" in whys[20] and "deleted" in whys[30]
    assert "unsaved" in whys[40]
    studio.drafts.clear()
    assert restore(settings, job.folder).restored == 1 and studio.results[40] == before[40]


def test_annotations_that_changed_or_are_being_changed_are_left(studio: FakeStudio, run: Any, toy: Toy) -> None:
    for name in "abc":
        studio.annotate([box(name)])
    studio.drafts.add(30)
    segment = toy.segmenter.decode

    def meanwhile(*given: Any) -> Any:
        studio.results[20][0]["value"]["y"] = 24.0
        return segment(*given)

    toy.segmenter.decode = meanwhile  # type: ignore[method-assign]
    report = run(in_place=True)
    assert studio.writes == [10] and studio.drafts == {30}
    assert {one["annotation"] for one in report["skipped"]} == {20, 30}
    assert any("unsaved changes" in note for note in report["notes"])


@pytest.mark.parametrize(("point", "at"), [("before", 10), ("before", 30), ("after", 30)])
def test_killed_around_a_change_each_annotation_is_changed_once(
    studio: FakeStudio, run: Any, job: LocalJob, settings: Settings, point: str, at: int
) -> None:
    for name in "abcde":
        studio.annotate([box(name)])
    before = copy.deepcopy(studio.results)

    def kill(number: int) -> None:
        if number == at:
            raise Killed

    setattr(studio, f"{point}_write", kill)
    with pytest.raises(Killed):
        run(in_place=True)
    written = len(studio.writes)
    recorded = [line for _, line in lines_of(job.folder / CHANGES_FILE) if "after" in line]
    assert recorded[-1]["annotation"] == at and recorded[-1]["before"] == before[at], "record before effect"
    setattr(studio, f"{point}_write", lambda number: None)
    report = run(in_place=True)
    assert sorted(studio.writes) == [10, 20, 30, 40, 50], "each one time"
    assert report["changed"] == 5 and report["changed_before"] == written
    assert restore(settings, job.folder).restored == 5 and studio.results == before


def test_a_person_changes_an_annotation_between_two_attempts(studio: FakeStudio, run: Any) -> None:
    studio.annotate([box("a")])

    def kill(number: int) -> None:
        raise Killed

    studio.before_write = kill
    with pytest.raises(Killed):
        run(in_place=True)
    studio.before_write = lambda number: None
    studio.results[10][0]["value"]["x"] = 27.0
    report = run(in_place=True)
    assert not studio.writes and report["skipped"][0]["annotation"] == 10


def test_what_was_looked_at_is_not_looked_at_again(
    studio: FakeStudio, settings: Settings, toy: Toy, job: LocalJob
) -> None:
    for name in "abcdef":
        studio.annotate([box(name)])
    seen: list[int] = []

    def stop(done: int, total: int, what: str) -> None:
        seen.append(done)
        if done >= 3 and "tightening" in what:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        tweak(ask(), settings, LocalJob(settings, job.id, stop), toy.engine)
    assert not studio.pushed
    with (job.folder / "found.jsonl").open("ab") as file:
        file.write(b'{"task": 6, "annot')  # as a crash leaves it
    looked = {line["task"] for _, line in lines_of(job.folder / "found.jsonl")}
    toy.segmenter.decoded.clear()
    report = tweak(ask(), settings, job, toy.engine)
    assert len(toy.segmenter.decoded) == 6 - len(looked) < 6
    assert (report["tasks"], report["boxes"], report["pushed"]) == (6, 6, 6)


def test_a_push_that_was_cut_off_is_completed(studio: FakeStudio, run: Any) -> None:
    for name in "abc":
        studio.annotate([box(name)])

    def kill() -> None:
        if len(studio.pushed) == 1:
            raise Killed

    studio.before_push = kill
    with pytest.raises(Killed):
        run()
    first = dict(studio.pushed)
    studio.before_push = lambda: None
    report = run()
    assert (report["pushed"], report["already_there"]) == (2, 1) and first.items() <= studio.pushed.items()


@pytest.mark.parametrize("more", [{}, {"in_place": True}])
def test_a_dry_run_changes_nothing(studio: FakeStudio, run: Any, job: LocalJob, more: dict[str, Any]) -> None:
    studio.annotate([box("a")])
    report = run(dry_run=True, **more)
    assert report["moved"] == 1 and not studio.pushed and not studio.writes
    assert not (job.folder / CHANGES_FILE).exists()


def test_classes_views_and_tasks_choose(studio: FakeStudio, settings: Settings, toy: Toy) -> None:
    studio.annotate([box("a"), box("b", "Cup", LOOSER), box("t", "Traffic light", LOOSER)])
    studio.annotate([box("c", "Cup", LOOSER)])
    studio.annotate([box("d", "Cup", LOOSER)])
    studio.views_["5"] = (PROJECT, [2, 3])

    def boxes(name: str, **more: Any) -> list[str]:
        job = LocalJob(settings, f"tweak-7-{name}")
        tweak(ask(dry_run=True, **more), settings, job, toy.engine)
        lines = [line for _, line in lines_of(job.folder / "found.jsonl")]
        return sorted(one["region"] for line in lines for part in line["annotations"] for one in part["boxes"])

    assert boxes("all") == ["a", "b", "c", "d", "t"]
    assert boxes("class", classes=("cups",)) == ["b", "c", "d"]
    assert boxes("classes", classes=("ball", "traffic_light")) == ["a", "t"]
    assert boxes("view", view=5) == ["c", "d"]
    assert boxes("task", tasks=(1, 3, 3), classes=("Cup",)) == ["b", "d"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"classes": ("Bicycle",)}, "has no class 'Bicycle'; it has Ball, Cup, Traffic light"),
        ({"view": 5}, "View 5 belongs to project 8"),
        ({"view": 6}, "There is no view 6"),
        ({"tasks": (1, 99)}, "has no task 99"),
    ],
)
def test_what_does_not_exist_is_said_and_nothing_is_done(
    studio: FakeStudio, run: Any, more: dict[str, Any], said: str
) -> None:
    studio.annotate([box("a")])
    studio.views_["5"] = (8, [1])
    with pytest.raises(TatorError, match=said):
        run(in_place=True, **more)
    assert not studio.writes


def test_a_project_without_boxes_is_no_error(studio: FakeStudio, run: Any) -> None:
    studio.annotate([POLYGON])
    studio.annotate([])
    report = run()
    assert (report["boxes"], report["moved"], report["iou"], report["pushed"]) == (0, 0, None, 0)


def test_a_picture_that_cannot_be_had_takes_only_its_own_boxes(studio: FakeStudio, run: Any) -> None:
    studio.annotate([box("a")])
    studio.annotate([box("b"), box("c")], image="data:image/png;base64,AAAA")
    studio.annotate([box("d")], text="no picture at all")
    report = run()
    assert (report["unreadable"], report["boxes"], set(studio.pushed)) == (3, 1, {1})
    assert any(note.startswith("Task 2: ") for note in report["notes"])


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("classify", [False, True])
def test_classes_are_offered_only_where_asked_for(
    studio: FakeStudio, run: Any, toy: Toy, classify: bool, in_place: bool
) -> None:
    toy.classifier.verdict = Verdict("cup", 0.97, (("cup", 0.97),))
    studio.annotate([box("a"), box("kept", "Ball", EMPTY), box("same", "Cup", SECOND)])
    report = run(classify=classify, in_place=in_place)
    after = studio.results[10] if in_place else studio.pushed[1]["result"]
    labels = [one["value"]["rectanglelabels"] for one in after]
    assert labels == ([["Cup"]] * 3 if classify else [["Ball"], ["Ball"], ["Cup"]])
    assert near(after[0], TRUTH) and all(after[1]["value"][key] == EMPTY[key] for key in GEOMETRY)
    assert report["offered"] == ({"Cup": 2} if classify else {})
    assert report["model_version"].startswith("bright-1+toy-head-1/" if classify else "bright-1/")
    if not in_place:
        assert studio.results[10][0] == box("a")


def test_of_several_annotations_a_prediction_follows_the_newest(studio: FakeStudio, run: Any) -> None:
    studio.annotate([box("old")], [box("new")])
    report = run()
    assert [one["id"] for one in studio.pushed[1]["result"]] == ["new"] and report["several_annotations"] == 1


def test_an_engine_that_is_away_is_waited_for_and_then_it_is_said(
    studio: FakeStudio, settings: Settings, toy: Toy, job: LocalJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.annotate([box("a")])
    answer, failures = toy.engine.answer, [EngineAway("gone")]

    def away(one: Ask) -> Any:
        assert one.lane == "batch"
        if failures:
            raise failures.pop()
        return answer(one)

    monkeypatch.setattr("training.sweep.RETRY_SECONDS", 0.05)
    monkeypatch.setattr(toy.engine, "answer", away)
    assert tweak(ask(), settings, job, toy.engine)["moved"] == 1
    failures += [EngineAway("Tator's engine is not running; start it with `tator up`.")] * 1000
    with pytest.raises(EngineAway, match="tator up"):
        tweak(ask(), settings, LocalJob(settings, "tweak-7-later"), toy.engine)


def test_the_patience_begins_when_an_engine_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with the question: an answer by a large model may take longer than the patience."""
    now, failures = [0.0], [EngineAway("gone")]
    monkeypatch.setattr("training.sweep.RETRY_SECONDS", 0.0)
    monkeypatch.setattr("training.sweep.time", SimpleNamespace(monotonic=lambda: now[0]))

    def answer() -> str:
        now[0] += 600
        if failures:
            raise failures.pop()
        return "answered"

    patient = Patient(cast(Any, None), 60, threading.Event())
    assert patient.patiently(answer) == "answered"
    failures += [EngineAway("gone")] * 3
    with pytest.raises(EngineAway):
        patient.patiently(answer)


def test_a_sheet_shows_the_boxes_that_moved_most(studio: FakeStudio, run: Any, job: LocalJob) -> None:
    from PIL import Image

    studio.annotate([box("a"), box("b", "Cup", LOOSER), box("c", "Cup", SECOND)])
    report = run(pictures=5, dry_run=True)
    assert [one["region"] for one in report["moved_most"]] == ["b", "a"]
    with Image.open(job.folder / "moved.png") as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 20)}
        assert sheet.size == (2 * 246 + 6, 264 + 6) and {(255, 140, 26), (39, 208, 122)} <= colours
    assert report["sheet"] == str(job.folder / "moved.png")


def test_every_objection_of_the_guard_has_a_short_name() -> None:
    import numpy as np

    nothing = Segment(np.zeros((4, 4), bool), (0, 0, 1, 1), 0.0, 0.0, 0.0)
    said = " and ".join(objections(nothing, (2, 2, 4, 4), Guard(0.6, 0.8, 0.9, 0.8)))
    assert kept_because(said) == ("disagreement", "low quality", "unstable mask", "inconsistent")
    assert len(objections(nothing, (2, 2, 4, 4), Guard(0.6, 0.8, 0.9, 0.8))) == len(kept_because(said))
    assert set(kept_because(said)) < set(KEPT.values())


def test_the_half_line_of_a_crash_is_cut_off(tmp_path: Any) -> None:
    path = tmp_path / "journal"
    for rest in (b"", b'{"b"', b'{"b": "' + b"x" * 200_000):
        path.write_bytes(b'{"a": 1}\n' + rest)
        assert [line for _, line in lines_of(path)] == [{"a": 1}]
        with Journal(path) as journal:
            journal.write({"c": 2}, safely=True)
        assert [line for _, line in lines_of(path)] == [{"a": 1}, {"c": 2}]
    path.write_bytes(b"half")
    with Journal(path):
        assert path.read_bytes() == b""
    assert list(lines_of(tmp_path / "none")) == []


def test_a_label_studio_that_is_away_for_a_moment_is_waited_for(
    studio: FakeStudio, settings: Settings, toy: Toy, job: LocalJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While tasks are read, while a picture is fetched, and around the change of an annotation."""
    for name in "abc":
        studio.annotate([box(name)], image=f"/{name}.png")
    before = copy.deepcopy(studio.results)
    store = image_store(settings)
    away = {"tasks": 1, "/b.png": 1, "before": 1, "after": 1}

    def once(what: str) -> bool:
        away[what] = away.get(what, 0) - 1
        return away[what] >= 0

    class Fetches:
        def fetch(self, address: str, task_id: int | None = None) -> ImageRef:
            if once(address):
                raise ImageError("Label Studio cannot be reached.")
            return ImageRef(store.put(scene_bytes()), (640, 480))

    listed = studio.tasks.list

    def cut_off(**asked: Any) -> Any:
        pager = listed(**asked)
        return CutOff(list(pager)) if once("tasks") else pager

    class CutOff(Pager):
        def __iter__(self) -> Any:
            yield self[0]
            raise StudioError("away", passing=True)

    def fails(point: str) -> Any:
        def check(number: int) -> None:
            if once(point):
                raise StudioError("away", passing=True)

        return check

    studio.tasks.list, studio.before_write, studio.after_write = cut_off, fails("before"), fails("after")
    for module in ("sweep", "tweak.apply"):
        monkeypatch.setattr(f"training.{module}.WAITS_SECONDS", (0.01, 0.01))
    report = tweak(ask(in_place=True), settings, job, toy.engine, Fetches())
    assert all(left < 0 for left in away.values()), "each was away once"
    assert (report["tasks"], report["unreadable"], report["changed"]) == (3, 0, 3)
    assert sorted(studio.writes) == [10, 20, 30] and all(near(one[0], TRUTH) for one in studio.results.values())
    assert restore(settings, job.folder).restored == 3 and studio.results == before
