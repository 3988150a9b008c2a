"""Phrases in the prompt field, answered by SAM 3, over the captured request: each object once, with its label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from label_config.build import build
from tator_ml.engine.concepts import ConceptAsk, ConceptsFound, Instance
from tator_ml.engine.masks import BoxMask
from tator_ml.engine.messages import EngineError, Verdict
from tator_ml.projects import KeptWords
from tator_ml.words.kept import mark_of
from tator_sdk.geometry import Xyxy
from tests.wire.conftest import TRUTH, Running, near
from tests.wire.test_tweak_command import SECOND, box
from tests.wire.test_words import FIRST, OTHER, PROJECT, TASK, answered, opened, said, typed

__all__ = ["opened", "typed"]  # fixtures

SIZE = (640, 480)
VERSION = "sam3-abc12345"
FIELD = 'model_mode="sam3"'


def instance(xyxy: Xyxy, score: float = 0.83, concept: int = 0, mask: bool = True) -> Instance:
    """One that fills its box."""
    filled = np.zeros(SIZE[::-1], bool)
    x0, y0, x1, y1 = map(round, xyxy)
    filled[y0:y1, x0:x1] = True
    return Instance(concept, score, xyxy, BoxMask.pack(filled, score) if mask else None)


class Sam3:
    """The engine's half: finds what it is told to find, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[ConceptAsk] = []
        self.found: Sequence[Instance] | Callable[[ConceptAsk], Sequence[Instance]] = ()
        self.before: Callable[[ConceptAsk], None] = lambda ask: None

    def find_concepts(self, ask: ConceptAsk) -> ConceptsFound:
        self.asked.append(ask)
        self.before(ask)
        found = self.found(ask) if callable(self.found) else self.found
        over = sorted((one for one in found if one.score >= ask.threshold), key=lambda one: -one.score)
        return ConceptsFound(tuple(over[: ask.limit]), len(over[ask.limit :]), SIZE, VERSION, True, 0.4)


@pytest.fixture
def sam3(running: Running, monkeypatch: pytest.MonkeyPatch) -> Sam3:
    made = Sam3()
    answer = running.engine.answer
    monkeypatch.setattr(running.engine, "find_concepts", made.find_concepts)
    monkeypatch.setattr(running.engine, "answer", lambda ask: answer(replace(ask, segmenter=None)))
    running.services.projects.choose(PROJECT, assists=("refine",))
    return made


def phrases(ask: ConceptAsk) -> list[str]:
    return [one.phrase for one in ask.concepts]


def test_phrases_become_boxes_with_their_labels(running: Running, typed: Any, sam3: Sam3) -> None:
    sam3.found = [instance(FIRST), instance(OTHER, 0.6, 1)]
    ball, cup = answered(running, typed("Ball: small ball; cup", options=FIELD))
    assert ball["value"]["rectanglelabels"] == ["Ball"] and near(ball["value"], TRUTH) and ball["score"] == 0.83
    assert cup["value"]["rectanglelabels"] == ["Cup"] and near(cup["value"], SECOND)
    assert ball["meta"]["text"] == ["“small ball” (sam3) 0.83"] and ball["from_name"] == "rect"
    (ask,) = sam3.asked
    assert phrases(ask) == ["small ball", "cup"] and ask.segmenter == "sam3" and ask.lane == "click"
    assert (ask.threshold, ask.masks, ask.task) == (0.5, False, f"{PROJECT}/{TASK}/words")
    assert ask.seconds and ask.seconds < 90
    assert "1 Ball, 1 Cup in" in said(running)
    assert running.services.suggestions.of_task(PROJECT, TASK)[0]["model_version"] == VERSION


def test_all_means_every_class_by_every_name(running: Running, typed: Any, sam3: Sam3) -> None:
    config = typed("x")["label_config"].replace(
        '<Label value="Ball"', '<Label value="Ball" predicted_values="orb,sphere"'
    )
    sam3.found = lambda ask: [
        instance(FIRST, 0.6, phrases(ask).index("orb")),
        instance((194.0, 121.0, 320.0, 264.0), 0.9, phrases(ask).index("sphere")),
        instance((193.0, 121.0, 321.0, 265.0), 0.7, phrases(ask).index("Cup")),
    ]
    (ball,) = answered(running, typed("all", options=FIELD, config=config))
    assert {"Ball", "orb", "sphere", "Cup"} <= set(phrases(sam3.asked[0]))
    assert ball["score"] == 0.9 and ball["value"]["rectanglelabels"] == ["Ball"], "the best of its instances"
    assert "1 Ball in" in said(running) and "twice" not in said(running)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("red car", "'red car' is no label: write 'Ball: red car'"),
        ("Ball, red car", "'red car' is no label"),
        ("Kiosk: red car", "There is no label 'Kiosk' for 'Kiosk: red car'; there is Ball"),
        ("a" * 101, "is too long"),
        (" ; ,", "Type what to find"),
        (", ".join(f"Ball: kind {n}" for n in range(201)), "201 phrases are more than 200"),
    ],
)
def test_phrases_that_fit_no_label_are_refused_with_the_mend(
    running: Running, typed: Any, sam3: Sam3, words: str, sentence: str
) -> None:
    assert answered(running, typed(words, options=FIELD)) == [] and not sam3.asked
    assert sentence in (running.error(PROJECT) or "")


def test_with_one_label_any_phrase_gives_it(running: Running, typed: Any, sam3: Sam3) -> None:
    config = (
        '<View><Image name="image" value="$image"/><TextArea name="prompt" toName="image"/>'
        '<RectangleLabels name="rect" toName="image"><Label value="Car"/></RectangleLabels></View>'
    )
    sam3.found = [instance(FIRST)]
    (car,) = answered(running, typed("shiny thing", options=FIELD, config=config))
    assert car["value"]["rectanglelabels"] == ["Car"] and phrases(sam3.asked[0]) == ["shiny thing"]


def test_threshold_and_limit_are_the_fields(running: Running, typed: Any, sam3: Sam3) -> None:
    sam3.found = [instance((40.0 * n, 10.0, 40.0 * n + 30, 60.0), 0.9 - 0.1 * n) for n in range(7)]
    assert len(answered(running, typed("ball", options=FIELD))) == 5 and sam3.asked[0].limit == 20
    options = f'{FIELD} model_score_threshold="0.35" model_max_results="4"'
    assert len(answered(running, typed("ball", options=options))) == 4
    assert "4 Ball in" in said(running) and "2 more than model_max_results allows" in said(running)


def test_what_stands_is_left_out_and_takes_nobodys_place(running: Running, typed: Any, sam3: Sam3) -> None:
    sam3.found = [instance(FIRST, 0.9), instance(OTHER, 0.8)]
    options = f'{FIELD} model_max_results="1"'
    (new,) = answered(running, typed("ball", box("stands", "Ball", TRUTH), options=options))
    assert near(new["value"], SECOND) and "1 stood already" in said(running) and new["id"] != "stands"


def test_masks_and_polygons_are_the_detectors_own(running: Running, typed: Any, sam3: Sam3) -> None:
    sam3.found = [instance(FIRST), instance(OTHER, mask=False)]
    config = build("sam3", ["Ball", "Cup"])
    for output, kind in (("mask", "brushlabels"), ("polygon", "polygonlabels"), ("box", "rectanglelabels")):
        running.services.projects.choose(PROJECT, output=output)
        regions = answered(running, typed("ball", config=config))
        assert {one["type"] for one in regions} == {kind} and sam3.asked[-1].masks is (output != "box")
        assert len(regions) == (2 if output == "box" else 1)
        assert regions[0]["from_name"] == ("brush" if output == "mask" else output)
    assert not running.segmenter.decoded, "the mask is the detector's own"


def test_the_class_head_is_asked_only_where_it_is_wanted(running: Running, typed: Any, sam3: Sam3) -> None:
    sam3.found = [instance(FIRST, 0.9), instance(OTHER, 0.8)]
    running.classifier.verdict = Verdict("box", 0.97, (("box", 0.97), ("ball", 0.02)))
    (body,) = running.predict(typed("ball", options=FIELD))
    assert body["model_version"] == VERSION and body["result"][0]["value"]["rectanglelabels"] == ["Ball"]
    running.services.projects.choose(PROJECT, assists=("classify",))
    (body,) = running.predict(typed("ball", options=FIELD))
    first, _ = body["result"]
    assert first["value"]["rectanglelabels"] == ["Box"] and first["score"] == 0.97
    assert first["meta"]["text"] == ["box 0.97 · ball 0.02", "“ball” (sam3) 0.90"]
    assert body["model_version"] == f"{VERSION}+toy-head-1"
    running.classifier.verdict = Verdict(None, 0.4, (("Ball", 0.4),))
    first, _ = answered(running, typed("ball", options=FIELD))
    assert first["value"]["rectanglelabels"] == ["Ball"] and first["score"] == 0.9, "the head abstains"


def test_without_a_mode_the_projects_segmenter_decides(
    running: Running, typed: Any, sam3: Sam3, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def detect(ask: object) -> None:
        asked.append(ask)
        raise EngineError("Qwen is away.")

    monkeypatch.setattr(running.engine, "detect", detect)
    sam3.found = [instance(FIRST)]
    running.services.projects.choose(PROJECT, segmenter="sam3")
    assert len(answered(running, typed("ball"))) == 1
    assert answered(running, typed("ball", options='model_mode="bbox"')) == [] and len(sam3.asked) == len(asked) == 1
    running.services.projects.activate(PROJECT, "sam3-run-7", "person", role="sam3")
    assert "(sam3-run-7)" in answered(running, typed("ball"))[0]["meta"]["text"][0]
    assert sam3.asked[-1].segmenter == "sam3-run-7", "the project's active version"


def test_errors_of_the_engine_reach_the_strip(running: Running, typed: Any, sam3: Sam3) -> None:
    def fails(ask: ConceptAsk) -> None:
        raise EngineError("SAM 3 is gated: ask for access on its page.")

    sam3.before = fails
    assert answered(running, typed("ball", options=FIELD)) == []
    assert running.error(PROJECT) == "SAM 3 is gated: ask for access on its page."


def test_kept_phrases_are_asked_on_the_next_pictures(running: Running, typed: Any, opened: Any, sam3: Sam3) -> None:
    keeps = f'{FIELD} model_keep_prompt="true"'
    sam3.found = [instance(FIRST)]
    answered(running, typed("all", options=keeps))
    assert running.services.projects.get(PROJECT).words == KeptWords("", "prompt") and "/forget" in said(running)
    config = typed("x", options=keeps)["label_config"]

    def ask(count: int, **about: Any) -> Any:
        return running.predict({**opened(count, **about), "label_config": config})

    several = ask(3)
    assert [len(each["result"]) for each in several] == [1, 1, 1] and sam3.asked[-1].lane == "batch"
    version = several[0]["model_version"]
    assert version.startswith(f"{VERSION}/words-")
    count = len(sam3.asked)
    assert ask(1, predictions=[{"model_version": version, "result": []}]) == [[]] and len(sam3.asked) == count
    running.services.projects.activate(PROJECT, "sam3-run-7", "person", role="sam3")
    (other,) = ask(1, predictions=[{"model_version": version, "result": []}])
    assert other["result"] and other["model_version"] != version, "another model is asked again"
    answered(running, typed("/forget"))
    assert ask(1) == [[]]


def test_marks_tell_models_and_options_apart() -> None:
    words = KeptWords("all")
    marks = {mark_of(words, {"threshold": t}, model) for t in (0.5, 0.3) for model in ("sam3", "sam3-run-7", "base")}
    assert len(marks) == 6
