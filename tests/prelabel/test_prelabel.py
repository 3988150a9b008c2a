"""A project asked in words, over a Label Studio in memory: predictions, each once, whatever ends the job."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tator_ml.engine.client import EngineAway
from tator_ml.engine.detections import DetectAsk, Detected, Detection
from tator_ml.engine.messages import Verdict
from tator_ml.learning.stores import project_choices
from tator_ml.quality.comparison import Comparison
from tator_sdk.errors import TatorError
from tator_sdk.push import Pushed
from tator_sdk.requests import Prelabel
from tator_sdk.settings import Settings
from tator_sdk.studio import UNLABELLED
from tests.prelabel.conftest import Killed, KilledOnce, Lent
from tests.tweak.conftest import PICTURE, SECOND, TRUTH, Pager, Toy
from training.cli import prelabel as prelabel_cli
from training.job import JobCancelled, LocalJob
from training.journal import lines_of
from training.prelabel.job import prelabel
from training.prelabel.look import FOUND_FILE

PROJECT = 7
CONFIG = (
    '<View><Image name="image" value="$image"/><TextArea name="prompt" toName="image" model_mode="bbox_sam"/>'
    '<RectangleLabels name="rect" toName="image"><Label value="Ball"/><Label value="Cup"/></RectangleLabels></View>'
)
BALL, CUP = Detection("balls", (180.0, 110.0, 333.0, 275.0)), Detection("cup", (370.0, 270.0, 590.0, 440.0))


class Model:
    """The engine's half in words."""

    def __init__(self) -> None:
        self.asked: list[DetectAsk] = []
        self.found: Callable[[int], Sequence[Detection]] = lambda count: (BALL, CUP)
        self.before: Callable[[int], None] = lambda count: None
        self.more: dict[str, Any] = {}

    def detect(self, ask: DetectAsk) -> Detected:
        self.before(len(self.asked))
        self.asked.append(ask)
        found = tuple(self.found(len(self.asked) - 1))
        said = Detected(found, "[…]", "end", True, (), 12, 0.1, "tiny-qwen-abc123", (640, 480))
        return replace(said, **self.more)


@pytest.fixture
def model(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> Model:
    made = Model()
    monkeypatch.setattr(toy.engine, "detect", made.detect, raising=False)
    toy.classifier.verdict = Verdict(None, 0.4, (("Ball", 0.4), ("Cup", 0.35)))
    return made


class Studio:
    """What this job needs of Label Studio, in memory."""

    def __init__(self, count: int = 3) -> None:
        self.config = CONFIG
        self.data: dict[int, Any] = {number: {"image": PICTURE} for number in range(1, count + 1)}
        self.annotated: set[int] = set()
        self.pushed: dict[str, dict[int, dict[str, Any]]] = {}
        self.before_push: Callable[[], None] = lambda: None
        self.projects = SimpleNamespace(get=lambda _: SimpleNamespace(label_config=self.config, model_version="Tator"))
        self.tasks = SimpleNamespace(list=self._tasks)

    def _tasks(self, project: int, query: str | None = None, **_: Any) -> Pager:
        assert project == PROJECT
        items = json.loads(query)["filters"]["items"] if query else []
        named = {item["value"] for item in items if item["filter"] == "filter:tasks:id"}
        chosen = [one for one in self.data if not named or one in named]
        if query == UNLABELLED:
            chosen = [one for one in chosen if one not in self.annotated]
        return Pager(SimpleNamespace(id=one, data=self.data[one], annotations=[]) for one in chosen)

    def push(self, version: str, tasks: Sequence[int], prediction_of: Any, before: Any) -> Pushed:
        held = self.pushed.setdefault(version, {})
        there = len(set(tasks) & set(held))
        for done, task in enumerate(tasks):
            if task not in held:
                before(done)
                self.before_push()
                held[task] = prediction_of(task)
        return Pushed(len(tasks) - there, there, ())


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> Studio:
    made = Studio()
    monkeypatch.setattr("training.sweep.open_studio", lambda _: made)

    class Pushes:
        def __init__(self, _: Settings, project: int, version: str) -> None:
            assert project == PROJECT
            self._version = version

        def push(self, *given: Any) -> Pushed:
            return made.push(self._version, *given)

    monkeypatch.setattr("training.sweep.PredictionsOfVersion", Pushes)
    return made


@pytest.fixture
def job(settings: Settings) -> LocalJob:
    return LocalJob(settings, f"prelabel-{PROJECT}-abcd")


Run = Callable[[Prelabel], dict[str, Any]]


@pytest.fixture
def run(settings: Settings, job: LocalJob, toy: Toy, studio: Studio) -> Run:
    """The job, over a Label Studio in memory and an engine of toys."""
    return lambda request: prelabel(request, settings, job, toy.engine)


def near(region: dict[str, Any], truth: dict[str, float]) -> bool:
    return all(abs(region["value"][key] - truth[key]) < 0.5 for key in truth)


def ask(**more: Any) -> Prelabel:
    return Prelabel(project=PROJECT, prompt="ball, cup", **more)


def test_what_the_model_finds_becomes_a_prediction_of_each_task(
    studio: Studio, model: Model, job: LocalJob, run: Run
) -> None:
    studio.annotated = {2}
    report = run(ask())
    (version,) = studio.pushed
    assert version == f"Qwen2.5-VL-3B-Instruct+bright-1+toy-head-1/{job.id}" == report["model_version"]
    held = studio.pushed[version]
    assert set(held) == {1, 3}, "nobody has labelled those"
    for task, one in held.items():
        ball, cup = one["result"]
        assert one["task"] == task and one["model_version"] == version
        assert near(ball, TRUTH) and near(cup, SECOND) and ball["value"]["rectanglelabels"] == ["Ball"]
    assert (report["tasks"], report["objects"], report["offered_tasks"], report["pushed"]) == (2, 4, 2, 2)
    assert report["counts"] == {"Ball": 2, "Cup": 2} and report["mode"] == "bbox_sam"
    assert json.loads((job.folder / "report.json").read_text()) == report
    assert {one.lane for one in model.asked} == {"batch"} and model.asked[0].seconds == pytest.approx(600, rel=0.2)


def test_nothing_is_pushed_in_a_dry_run(studio: Studio, model: Model, job: LocalJob, run: Run) -> None:
    model.found = lambda count: [BALL, Detection("kiosk", CUP.xyxy)]
    report = run(ask(dry_run=True, max_results=1))
    assert not studio.pushed and report["pushed"] == 0 and report["objects"] == 3
    assert report["unmatched"] == {"kiosk": 3}


def test_options_of_the_request_go_before_those_of_the_field(
    studio: Studio, model: Model, job: LocalJob, run: Run
) -> None:
    wanted = ask(mode="bbox", classify=False, max_results=1, tasks=(2,), image_type="X-ray", extra_context="Chests.")
    report = run(wanted)
    (held,) = studio.pushed.values()
    assert set(held) == {2} and len(held[2]["result"]) == 1 and "score" not in held[2]["result"][0]
    assert report["model_version"] == f"Qwen2.5-VL-3B-Instruct/{job.id}"
    assert "X-ray" in model.asked[0].user and "Chests." in model.asked[0].user


def test_empty_words_mean_all_classes(studio: Studio, model: Model, job: LocalJob, run: Run) -> None:
    for words in ("", "all"):
        run(Prelabel(project=PROJECT, prompt=words, dry_run=True))
        (job.folder / FOUND_FILE).unlink()
    assert all("Ball, Cup" in one.user for one in model.asked)


@pytest.mark.parametrize("at", range(4))
def test_a_killed_job_goes_on_and_asks_and_pushes_nothing_twice(
    studio: Studio, model: Model, run: Run, at: int
) -> None:
    """Killed before a question, or before a prediction is created."""
    strikes = KilledOnce(at)

    model.before = strikes
    if at == 3:  # all three were asked
        studio.before_push = lambda: strikes(at if len(next(iter(studio.pushed.values()))) == 1 else -1)
    with pytest.raises(Killed):
        run(ask(in_flight=1))
    report = run(ask(in_flight=1))
    (held,) = studio.pushed.values()
    assert set(held) == {1, 2, 3} and len(model.asked) == 3
    assert (report["tasks"], report["pushed"], report["already_there"]) == ((3, 2, 1) if at == 3 else (3, 3, 0))


def test_another_model_or_head_that_becomes_active_meanwhile_changes_nothing(
    settings: Settings, model: Model, job: LocalJob, run: Run
) -> None:
    run(ask(dry_run=True))
    plan = json.loads((job.folder / "plan.json").read_text())
    project_choices(settings).choose(PROJECT, segmenter="sam2-tiny")
    report = run(ask())
    assert report["model_version"] == plan["version"] and plan["segmenter"] is None


def test_it_can_be_cancelled_between_pictures(studio: Studio, model: Model, job: LocalJob, run: Run) -> None:
    def cancelled(done: int, total: int, what: str) -> None:
        assert total == 3 and "a minute" in what
        if done:
            raise JobCancelled

    job.progress = cancelled  # type: ignore[method-assign]
    with pytest.raises(JobCancelled):
        run(ask(in_flight=1))
    assert 1 <= len(list(lines_of(job.folder / FOUND_FILE))) < 3 and not studio.pushed


def test_an_engine_that_is_away_for_a_moment_is_waited_for(
    studio: Studio, model: Model, job: LocalJob, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.sweep.RETRY_SECONDS", 0.05)
    away = [True, True]

    def ends(count: int) -> None:
        if away and away.pop():
            raise EngineAway("Tator's engine is not running.")

    model.before = ends
    assert run(ask())["pushed"] == 3
    model.before = lambda count: (_ for _ in ()).throw(EngineAway("Tator's engine is not running."))
    (job.folder / FOUND_FILE).unlink()
    with pytest.raises(TatorError, match="not running"):
        run(ask())


def test_pictures_and_answers_that_cannot_be_read_are_counted(
    studio: Studio, model: Model, job: LocalJob, run: Run
) -> None:
    studio.data[2] = {"image": "/nowhere/else.png"}
    studio.data[4] = {}
    model.found = lambda count: ()
    model.more = {"complete": False, "text": "I am sorry"}
    report = run(ask())
    assert (report["unreadable"], report["garbled"], report["pushed"]) == (2, 2, 0)
    assert any("Task 4" in note for note in report["notes"])
    model.more = {"ended": "length", "complete": False}
    model.found = lambda count: [BALL]
    (job.folder / FOUND_FILE).unlink()
    report = run(ask())
    assert (report["cut"], report["garbled"], report["offered_tasks"]) == (2, 0, 2)


def test_a_configuration_that_cannot_take_the_answer_is_said(
    studio: Studio, model: Model, job: LocalJob, run: Run
) -> None:
    studio.config = '<View><Image name="image" value="$image"/></View>'
    with pytest.raises(TatorError, match="<RectangleLabels>"):
        run(ask())
    studio.config = '<View><Text name="text" value="$text"/></View>'
    with pytest.raises(TatorError, match="no <Image>"):
        run(ask())


def test_the_verb_shows_what_was_found_and_how_to_take_it_back(
    studio: Studio,
    settings: Settings,
    toy: Toy,
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.prelabel.job.open_engines", lambda *_: Lent(toy.engine))
    monkeypatch.setattr(prelabel_cli, "read_settings", lambda home: settings)
    model.found = lambda count: [BALL, Detection("kiosk", CUP.xyxy)]

    def tator(*words: str, code: int = 0) -> str:
        app = typer.Typer()
        app.callback()(lambda: None)
        prelabel_cli.register(app)
        done = CliRunner().invoke(app, ["prelabel", "qwen", *words], env={"COLUMNS": "200"})
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, done.output
        return done.output

    number = str(PROJECT)
    said = tator("--project", number, "--prompt", "ball", "--here")
    assert "3 objects in 3 of 3 tasks" in said and "kiosk 3" in said and "New predictions: 3" in said
    assert f"tator prelabel qwen --undo prelabel-{PROJECT}-here-" in said
    assert "Nothing was pushed" in tator("--project", number, "--here", "--dry-run")
    assert "mode" in tator("--project", number, "--mode", "mask", code=2)
    with pytest.raises(TatorError, match="not the whole id"):
        tator("--undo", "tweak-7-abcd")
    with pytest.raises(TatorError, match="which project"):
        tator()


def test_tasks_that_are_drawn_for_a_comparison_are_left_out(
    studio: Studio, settings: Settings, model: Model, run: Run
) -> None:
    comparison = Comparison(0.1, 5, 0.0)
    assert [task for task in studio.data if comparison.draws(task)] == [2]
    project_choices(settings).choose(PROJECT, comparison=comparison)
    report = run(ask())
    ((_, held),) = studio.pushed.items()
    assert set(held) == {1, 3} and report["tasks"] == 3 and len(model.asked) == 2
    assert any("drawn for the comparison" in note for note in report["notes"])
