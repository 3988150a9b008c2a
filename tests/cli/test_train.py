"""``tator train clip``: its options, where it runs, what it leaves and says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import typer
from pydantic import Field
from rich.console import Console
from typer.testing import CliRunner

import training.cli.train
from tator_ml.engine.head import Head
from tator_ml.jobs import JobRecord, lifecycle
from tator_ml.jobs.order import Ending
from tator_ml.jobs.owner import Owner
from tator_ml.launch import launch
from tator_ml.learning.stores import head_registry
from tator_sdk.cli.options import EITHER_SPELLING, with_request
from tator_sdk.errors import TatorError
from tator_sdk.requests import HeadTraining, JobRequest
from tator_sdk.settings import Settings
from tests.cli.conftest import SHAPES, Tator, head, report
from tests.jobs.conftest import Jobs
from training.clip.learn import TooFewExamples

ROOT = Path(__file__).parents[2]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[HeadTraining]:
    """Requests that would have been trained here; a head of random weights stands for each."""
    requests: list[HeadTraining] = []

    def train(request: HeadTraining, settings: Settings, job: Any) -> dict[str, Any]:
        requests.append(request)
        job.log("a line of the log")
        entry = head_registry(settings).add(head("Car", "Bus"), request.project, report("Car", "Bus", active=0.85))
        return {"version": entry.version, "activated": request.project is not None}

    monkeypatch.setattr("training.clip.train.train", train)
    return requests


def test_a_real_training_in_a_process_of_its_own(yolo: Path, tmp_path: Path) -> None:
    words = ["train", "clip", "--images-path", yolo / "images", "--here", "-v"]
    words += ["--model-output", tmp_path / "out" / "shapes.pkl", "--labelmap-output", tmp_path / "names.pkl"]
    done = subprocess.run(
        [sys.executable, "-m", "tator_sdk", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "140"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    trained = Head.load(tmp_path / "out" / "shapes")
    assert trained.classes == SHAPES
    assert (tmp_path / "names.txt").read_text().split() == list(SHAPES)
    assert json.loads((tmp_path / "out" / "shapes" / "report.json").read_text())["version"] == trained.version
    for words in (
        "Heads are never pickles",
        "instead of shapes.pkl the folder",
        f"Instead of names.pkl the text file {tmp_path / 'names.txt'}",
        f"{trained.version} learned from",
        "there was no active head",
        "It answers from a probability of",
        "It is not active: that is left to you",
        f"tator models activate {trained.version} --project N",
        "labelled boxes in",  # of the log
    ):
        assert words in done.stdout, done.stdout
    assert not list((Settings().home / "jobs").iterdir())


def test_liblinear_original_spellings_and_a_second_run(yolo: Path, tmp_path: Path, tator: Tator) -> None:
    words = ["--images_path", yolo / "images", "--labels_path", yolo / "labels"]
    words += ["--labelmap_path", yolo / "labelmap.txt", "--model_output", tmp_path / "head"]
    words += ["--labelmap_output", tmp_path / "names.txt", "--solver", "liblinear", "--max_iter", "50"]
    words += ["--device_override", "cpu", "--resume-cache", "--hard-example-mining"]
    said = tator("train", "clip", *words)
    assert "macro-F1" in said and "disc" in said
    request = json.loads((tmp_path / "head" / "report.json").read_text())["request"]
    assert (request["solver"], request["max_iter"], request["device"]) == ("liblinear", 50, "cpu")
    assert request["cache"] and request["hard_example_mining"]
    before = Head.load(tmp_path / "head")
    tator("train", "clip", *words, "--C", "0.5")  # what was written before is a head, so it may be replaced
    assert Head.load(tmp_path / "head").digest != before.digest


def test_dry_run_counts_and_names_each_bad_line(yolo: Path, tmp_path: Path, tator: Tator) -> None:
    shutil.copytree(yolo, tmp_path / "set")
    bad = tmp_path / "set" / "labels" / "00.txt"
    good = len(bad.read_text().splitlines())
    bad.write_text(bad.read_text() + "9 0.5 0.5 0.1 0.1\n0 0.5 much 0.1 0.1\n")
    (tmp_path / "set" / "labelmap.txt").write_text("\n".join([*SHAPES, "ghost"]))
    said = tator("train", "clip", "--images-path", tmp_path / "set" / "images", "--dry_run")
    counted = {line.split()[0]: [int(word) for word in line.split()[1:4]] for line in said.splitlines()[1:7] if line}
    assert counted["ghost"] == [0, 0, 0] and "fewer than 2" in said
    boxes = sum(len(path.read_text().splitlines()) for path in (yolo / "labels").iterdir())
    assert counted["all"][0] == boxes and counted["all"][1] + counted["all"][2] == boxes and counted["all"][2] > 0
    assert all(counted[shape][0] == counted[shape][1] + counted[shape][2] for shape in SHAPES)
    assert f"{bad}:{good + 1}: class 9 is not among the 5" in said and f"{bad}:{good + 2}: not a row" in said
    assert "Nothing was trained" in said and not (Settings().home / "heads").exists()

    for path in (tmp_path / "set" / "labels").iterdir():
        path.write_text("".join(line for line in path.read_text().splitlines(True) if line.startswith("0")))
    with pytest.raises(TooFewExamples, match="at least two classes"):
        tator("train", "clip", "--images-path", tmp_path / "set" / "images", "--dry-run")


def test_dry_run_promises_what_training_holds_out(yolo: Path) -> None:
    import numpy as np

    from tator_ml.learning.stores import image_store
    from training.clip.dataset import read_dataset
    from training.clip.learn import Examples, learn
    from training.clip.preview import preview
    from training.job import LocalJob

    request, settings = HeadTraining(images_path=yolo / "images", max_iter=2, unknown_share=0), Settings()
    dataset = read_dataset(request, settings, image_store(settings), LocalJob(settings, "dry"), trains=False)
    found = preview(dataset, request)
    labels, images = [one.label for one in dataset.items], [one.box.image for one in dataset.items]
    embeddings = np.random.default_rng(0).normal(size=(len(labels), 4)).astype(np.float32)
    learned = learn(Examples(embeddings, labels, images, dataset.classes), request, "none", "none")
    assert sum(found.held_out.values()) == learned.held_out.sum()
    assert found.pictures_held_out == learned.metrics["held_out"]["images"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "give either --project N"),
        (["--project", "3", "--images-path", "x"], "give either --project N"),
        (["--project", "3", "--max-iter", "0"], "--max-iter"),
        (["--project", "3", "--C", "0"], "--inverse-regularization"),
        (["--project", "3", "--solver", "magic"], "newton-cg"),
        (["--project", "3", "--nonsense"], "--nonsense"),
    ],
)
def test_refused_options_are_named(words: list[str], sentence: str, tator: Tator) -> None:
    assert sentence in tator("train", "clip", *words, code=2)


def test_refusals_come_before_the_training(asked: list[HeadTraining], tmp_path: Path, tator: Tator) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").touch()
    for words, sentence in [
        (["--images-path", "x", "--detach"], "give --project N"),
        (["--project", "3", "--detach", "--here"], "not --here"),
        (["--project", "3", "--detach", "--model-output", "x"], "tator models export"),
        (["--project", "3", "--model-output", tmp_path / "full"], "other things than a head"),
        (["--project", "3", "--model-output", tmp_path / "full" / "letter.txt"], "is a file"),
        (["--project", "3", "--labelmap-output", tmp_path], "is a folder"),
        (["--project", "3", "--detach"], "Redis does not answer"),
    ]:
        with pytest.raises(TatorError, match=sentence):
            tator("train", "clip", *words)
    assert not asked


def test_without_a_worker_it_trains_here(asked: list[HeadTraining], tator: Tator) -> None:
    said = tator("train", "clip", "-p", "3", "--tol", "0.01", "--no-resume-cache", "--activation", "always")
    said = " ".join(said.split())  # wherever lines were broken
    assert "No worker answers, so it is trained here" in said
    assert "head-before reached 0.850" in said and "1 note;" in said and "a line of the log" not in said
    assert "It is active in project 3" in said and "tator models rollback --project 3" in said
    assert asked == [HeadTraining(project=3, tolerance=0.01, cache=False, activation="always")]
    assert "note: 'Tram'" in tator("train", "clip", "-p", "3", "--here", "--verbose")


def test_ctrl_c_ends_it_with_a_sentence(tator: Tator, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.clip.train.train", train)
    assert "Stopped: no head was made" in tator("train", "clip", "-p", "3", "--here", code=130)


def test_detach_starts_one_job_a_project(jobs: Jobs, tator: Tator) -> None:
    def detached(*words: str) -> str:
        done = CliRunner().invoke(training.cli.train.train, ["clip", "-p", "3", "--detach", *words])
        if done.exception:
            raise done.exception
        assert f"tator jobs log --follow {done.stdout.strip()}" in done.stderr
        return done.stdout.strip()

    first = detached("--max_iter", "7")
    record = jobs.records.get(first)
    assert record.status == "queued" and HeadTraining.model_validate(record.request).max_iter == 7
    assert (record.project, record.kind) == (3, "clip")
    assert detached("--max-iter", "7") == first
    with pytest.raises(TatorError, match=f"tator jobs cancel {first}"):
        detached("--max-iter", "8")


def test_a_worker_does_it_after_the_training_that_runs(
    jobs: Jobs, asked: list[HeadTraining], tator: Tator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that runs was asked with other settings: its head is not ours."""
    (running,) = launch(jobs.settings, HeadTraining(project=3))
    attempt = lifecycle.begin(jobs.connection, running.id, Owner.current())
    assert attempt
    followed: list[JobRecord] = []

    def follow(settings: Settings, job_id: str, console: Console) -> JobRecord:
        followed.append(jobs.records.get(job_id))
        begun = attempt if job_id == running.id else lifecycle.begin(jobs.connection, job_id, Owner.current())
        assert begun
        entry = head_registry(settings).add(head("Car", "Bus", seed=len(followed)), 3, report("Car", "Bus"))
        result = {"version": entry.version, "activated": False}
        assert lifecycle.finish(jobs.connection, job_id, begun, Ending("done", result=result))
        return jobs.records.get(job_id)

    monkeypatch.setattr(training.cli.train, "follow", follow)
    monkeypatch.setattr("tator_ml.jobs.connection.living_workers", lambda _: 1)
    said = tator("train", "clip", "-p", "3", "--max-iter", "7")
    assert [one.request["max_iter"] for one in followed] == [1000, 7]
    assert "yours comes now" in said and "head-p3-2-" in said and "It is not active" in said
    assert not asked


def test_a_job_that_fails_ends_with_one(jobs: Jobs, tator: Tator, monkeypatch: pytest.MonkeyPatch) -> None:
    def follow(settings: Settings, job_id: str, console: Console) -> JobRecord:
        begun = lifecycle.begin(jobs.connection, job_id, Owner.current())
        assert begun and lifecycle.finish(jobs.connection, job_id, begun, Ending("failed", error="No boxes."))
        return jobs.records.get(job_id)

    monkeypatch.setattr(training.cli.train, "follow", follow)
    monkeypatch.setattr("tator_ml.jobs.connection.living_workers", lambda _: 1)
    tator("train", "clip", "-p", "3", code=1)


class Painting(JobRequest):
    """A request with all kinds of fields."""

    SECTIONS: ClassVar[Mapping[str, str]] = {"glossy": "Looks"}

    room: str = Field(description="Which [one].")
    coats: int = Field(2, ge=1, le=5, description="How often.")
    paint_brush: Literal["broad", "very_fine"] = Field("broad", description="With what.")
    glossy: bool = Field(False, description="Shine.")
    colours: tuple[str, ...] = Field(("white",), description="Which.")
    share: float = Field(0.5, gt=0, lt=1, description="How much.")
    plan: Path | None = Field(None, description="Drawing.")


def test_options_are_those_of_any_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    app, painted = typer.Typer(), []

    @app.command(context_settings=EITHER_SPELLING)
    @with_request(Painting, also={"glossy": ["shiny"]})
    def paint(request: Painting, twice: bool = False) -> None:
        """Paint."""
        painted.append((request, twice))

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, words, env={"COLUMNS": "120"})

    done = run("--room", "bath", "--paint_brush", "very_fine", "--shiny", "--colours", "red", "--colours", "blue")
    assert done.exit_code == 0, done.output
    assert run("--room", "hall", "--no-shiny", "--plan", "hall.png", "--twice").exit_code == 0
    assert painted == [
        (Painting(room="bath", paint_brush="very_fine", glossy=True, colours=("red", "blue")), False),
        (Painting(room="hall", plan=tmp_path / "hall.png"), True),
    ]
    assert "--room" in run().output and "--coats" in run("--room", "x", "--coats", "6").output
    assert "--share" in run("--room", "x", "--share", "1").output
    shown = run("--help").output
    for words in ("Which [one].", "How often. (1 to 5)", "(above 0, below 1)", "--shiny", "Looks", "broad|very"):
        assert words in shown
    with pytest.raises(ValueError, match="no field"):
        with_request(Painting, also={"nothing": []})(paint)


def test_these_verbs_import_neither_torch_nor_sklearn() -> None:
    code = (
        "import sys, training.cli.train, tator_ml.cli; print(sorted({'torch', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_help_teaches_with_examples(tator: Tator) -> None:
    assert "tator train clip --images-path data/images --dry-run" in tator("train", "--help")
    assert "Example: tator train clip --project 3 --solver saga --C 0.5" in tator("train", "clip", "--help")
