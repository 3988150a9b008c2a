"""A project asked by phrases, over a Label Studio in memory: as in words, with SAM 3's options and versions."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tator_ml.engine.concepts import ConceptAsk
from tator_ml.learning.stores import project_choices
from tator_sdk.errors import TatorError
from tator_sdk.requests import Prelabel
from tator_sdk.settings import Settings
from tests.prelabel.conftest import Killed, KilledOnce, Lent
from tests.prelabel.test_prelabel import PROJECT, Run, Studio, job, near, run, studio
from tests.tweak.conftest import SECOND, TRUTH, Toy
from tests.wire.test_concepts import Sam3, instance, phrases
from tests.wire.test_words import FIRST, OTHER
from training.cli import prelabel as prelabel_cli
from training.job import LocalJob

__all__ = ["job", "run", "studio"]  # fixtures

VERSION = "sam3-abc12345"


@pytest.fixture
def sam3(toy: Toy, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Sam3:
    made = Sam3()
    made.found = [instance(FIRST, 0.9, 0), instance(OTHER, 0.6, 1)]
    monkeypatch.setattr(toy.engine, "find_concepts", made.find_concepts)
    monkeypatch.setattr(toy.engine, "segmenter_version", lambda name: VERSION if name == "sam3" else f"{name}-1")
    project_choices(settings).choose(PROJECT, assists=())
    return made


def ask(**more: Any) -> Prelabel:
    return Prelabel(by="sam3", project=PROJECT, **more)


def test_all_classes_become_a_prediction_of_each_task(studio: Studio, sam3: Sam3, job: LocalJob, run: Run) -> None:
    studio.annotated = {2}
    report = run(ask())
    ((version, held),) = studio.pushed.items()
    assert version == f"{VERSION}/{job.id}" == report["model_version"] and set(held) == {1, 3}
    for one in held.values():
        ball, cup = one["result"]
        assert near(ball, TRUTH) and ball["value"]["rectanglelabels"] == ["Ball"] and ball["score"] == 0.9
        assert near(cup, SECOND) and cup["value"]["rectanglelabels"] == ["Cup"] and one["score"] == 0.6
    assert phrases(sam3.asked[0]) == ["Ball", "Cup"] and {one.lane for one in sam3.asked} == {"batch"}
    assert (report["tasks"], report["objects"], report["pushed"], report["mode"]) == (2, 4, 2, "sam3")
    assert sam3.asked[0].seconds == 600


@pytest.mark.parametrize(("options", "threshold"), [({}, 0.7), ({"threshold": 0.8}, 0.8)])
def test_options_of_the_request_go_before_those_of_the_field(
    studio: Studio, sam3: Sam3, run: Run, options: dict[str, float], threshold: float
) -> None:
    studio.config = studio.config.replace('model_mode="bbox_sam"', 'model_mode="sam3" model_score_threshold="0.7"')
    report = run(ask(prompt="Ball: small ball", dry_run=True, tasks=(2,), **options))
    assert report["counts"] == {"Ball": 1} and not studio.pushed and sam3.asked[-1].threshold == threshold
    assert report["offered_tasks"] is not True, "one task is a number too"
    assert phrases(sam3.asked[-1]) == ["small ball"]


def test_threshold_limit_output_and_model_of_the_request(studio: Studio, sam3: Sam3, job: LocalJob, run: Run) -> None:
    labels = '<Label value="Ball"/><Label value="Cup"/>'
    polygons = f'<PolygonLabels name="poly" toName="image">{labels}</PolygonLabels></View>'
    studio.config = studio.config.replace("</View>", polygons)
    report = run(ask(threshold=0.1, max_results=1, output="polygon", model="sam3-run-7"))
    (held,) = studio.pushed.values()
    assert {one["type"] for each in held.values() for one in each["result"]} == {"polygonlabels"}
    assert report["more"] == 3 and report["objects"] == 3 and report["model_version"].startswith("sam3-run-7-1/")
    assert sam3.asked[0].segmenter == "sam3-run-7" and sam3.asked[0].threshold == 0.1 and sam3.asked[0].masks


def test_the_class_head_only_where_it_is_wanted(
    studio: Studio, sam3: Sam3, toy: Toy, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = toy.engine.answer
    monkeypatch.setattr(toy.engine, "answer", lambda ask: answer(type(ask)(**{**vars(ask), "segmenter": None})))
    report = run(ask(classify=True, dry_run=True))
    assert report["model_version"].startswith(f"{VERSION}+toy-head-1/")


@pytest.mark.parametrize("at", range(4))
def test_a_killed_job_goes_on_and_asks_and_pushes_nothing_twice(
    studio: Studio, sam3: Sam3, settings: Settings, run: Run, at: int
) -> None:
    """Killed before a question, or before a prediction is created; another version becomes active meanwhile."""
    strikes = KilledOnce(at)

    def asked(_: ConceptAsk) -> None:
        try:
            strikes(len(sam3.asked) - 1)
        except Killed:
            sam3.asked.pop()
            raise

    sam3.before = asked
    if at == 3:  # all three were asked
        studio.before_push = lambda: strikes(at if len(next(iter(studio.pushed.values()))) == 1 else -1)
    with pytest.raises(Killed):
        run(ask(in_flight=1))
    project_choices(settings).activate(PROJECT, "sam3-run-7", "person", role="sam3")
    report = run(ask(in_flight=1))
    ((version, held),) = studio.pushed.items()
    assert set(held) == {1, 2, 3} and len(sam3.asked) == 3 and version.startswith(f"{VERSION}/")
    assert {one.segmenter for one in sam3.asked} == {"sam3"}
    assert (report["pushed"], report["already_there"]) == ((2, 1) if at == 3 else (3, 0))


def test_a_phrase_that_fits_no_label_ends_the_job_with_the_mend(studio: Studio, sam3: Sam3, run: Run) -> None:
    with pytest.raises(TatorError, match="write 'Ball: red car'"):
        run(ask(prompt="red car"))
    assert not sam3.asked


@pytest.mark.parametrize(
    "given", [{"by": "sam3", "mode": "bbox"}, {"by": "sam3", "segmenter": "x"}, {"threshold": 0.5}, {"max_results": 51}]
)
def test_options_of_the_other_model_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"leave it out|up to 50"):
        Prelabel(project=PROJECT, **given)


def test_the_verb_shows_what_was_found_and_how_to_take_it_back(
    studio: Studio, settings: Settings, toy: Toy, sam3: Sam3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.prelabel.job.open_engines", lambda *_: Lent(toy.engine))
    monkeypatch.setattr(prelabel_cli, "read_settings", lambda home: settings)

    def tator(*words: str, code: int = 0) -> str:
        app = typer.Typer()
        app.callback()(lambda: None)
        prelabel_cli.register(app)
        done = CliRunner().invoke(app, ["prelabel", "sam3", *words], env={"COLUMNS": "200"})
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, done.output
        return done.output

    number = str(PROJECT)
    assert "Nothing was pushed" in tator("--project", number, "--here", "--dry-run")
    said = tator("--project", number, "--max-results", "1", "--here")
    assert "3 objects in 3 of 3 tasks" in said and "(by sam3, sam3)" in said and "--max-results: 3" in said
    assert f"tator prelabel sam3 --undo prelabel-{PROJECT}-here-" in said
    assert "output" in tator("--project", number, "--output", "ellipse", code=2)
    with pytest.raises(TatorError, match="tator prelabel sam3 --project N"):
        tator()
