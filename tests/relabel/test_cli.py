"""``tator relabel`` and its undo."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import typer
from typer.testing import CliRunner

from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings
from tests.relabel.conftest import PROJECT, FakeStudio, ReadsPlaces, region
from training.cli import relabel as relabel_cli


def tator(*words: str, answer: str | None = None) -> str:
    app = typer.Typer()
    app.callback()(lambda: None)
    relabel_cli.register(app)
    done = CliRunner().invoke(app, ["relabel", *words], input=answer, env={"COLUMNS": "200"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


@pytest.fixture(autouse=True)
def _toy_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.clip.train.open_encoder", lambda *_: nullcontext(ReadsPlaces()))


def job_of(studio: FakeStudio) -> str:
    return str(studio.held[-1].model_version.partition("/")[2])


def test_what_is_found_is_shown_and_can_be_taken_back(studio: FakeStudio, settings: Settings, version: str) -> None:
    others = [studio.hold(task=1, model_version=name) for name in ("Tator", f"{version}/check", "x/relabel-7-other")]
    task = studio.annotate([region("a", "Star", "Heart", 9), region("b", "Comet", "Moon", 9)])
    said = tator("--project", str(PROJECT))
    assert f"{settings.label_studio_url}/projects/{PROJECT}/data?task={task}" in said
    assert "New predictions: 1." in said and "1 box of classes that the head does not know" in said
    job = job_of(studio)
    assert f"tator relabel --undo {job}" in said
    assert f"{version}/{job}" in said and "prediction score, ascending" in said

    assert "Nothing was deleted" in tator("--undo", job, answer="n\n") and len(studio.held) == 4
    assert f"{PROJECT}: 1 of {job}" in tator("--undo", job, "--yes")
    assert [one.id for one in studio.held] == others
    assert "nothing was deleted" in tator("--undo", job, "--yes")


def test_a_dry_run_says_that_nothing_was_pushed(studio: FakeStudio, version: str) -> None:
    studio.annotate([region("a", "Star", "Heart", 9)])
    said = tator("--project", str(PROJECT), "--dry-run", "--here")
    assert "predictions for 1 task" in said and not studio.held and "--undo" not in said


def test_nothing_to_correct_is_said(studio: FakeStudio, version: str) -> None:
    studio.annotate([region("a", "Star", "Star", 9)])
    assert "nothing to correct" in tator("-p", str(PROJECT))
    studio.annotated.clear()
    assert "no box to check" in tator("-p", str(PROJECT))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "tator relabel --project N"),
        (["--project", "7", "--here", "--detach"], "leave one of them out"),
        (["--undo", "check"], "whole id"),
        (["--undo", "relabel-7/../x"], "whole id"),
        (["--undo", "relabel-x"], "--project N"),
    ],
)
def test_refusals_are_sentences(studio: FakeStudio, words: list[str], sentence: str) -> None:
    with pytest.raises(TatorError, match=sentence):
        tator(*words)
