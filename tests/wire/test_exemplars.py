"""Boxes around examples, over captured requests: all that look alike, negatives, what stands, and bad input."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

import tator_ml.prompts.leftovers
from tator_ml.words.examples_drawn import DrawnExamples
from tests.wire.conftest import TRUTH, Running, near
from tests.wire.test_concepts import PROJECT, VERSION, Sam3, instance, sam3
from tests.wire.test_tweak_command import SECOND
from tests.wire.test_words import FIRST, OTHER, TASK

__all__ = ["sam3"]  # a fixture

LOOSE = {"x": 28.0, "y": 23.0, "width": 24.0, "height": 34.0}  # around FIRST
THIRD = (20.0, 300.0, 120.0, 400.0)
CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<RectangleLabels name="rect" toName="image"><Label value="Ball"/><Label value="Cup"/></RectangleLabels>'
    '<RectangleLabels name="like" toName="image" model_mode="exemplar" model_negatives="Not this" {}>'
    '<Label value="Ball"/><Label value="Cup"/><Label value="Not this"/></RectangleLabels>'
    '<PolygonLabels name="polygon" toName="image"><Label value="Ball"/></PolygonLabels></View>'
)


def drawn(name: str, place: dict[str, float] = LOOSE, label: str = "Ball", **more: Any) -> dict[str, Any]:
    value = {"rotation": 0, **place, "rectanglelabels": [label]}
    return {
        "id": name, "from_name": "like", "to_name": "image", "type": "rectanglelabels", "origin": "manual",
        "original_width": 640, "original_height": 480, "image_rotation": 0, "value": value, **more,
    }  # fmt: skip


class Drawing:
    """Boxes drawn on the captured task, each time with all of their label."""

    def __init__(self, running: Running, body: Any) -> None:
        self._running = running
        self._body = body
        self.task = body["tasks"][0]
        self.task.update(predictions=[], annotations=[], drafts=[])

    def ask(self, *items: dict[str, Any], options: str = "") -> list[dict[str, Any]]:
        self._body["label_config"] = CONFIG.format(options)
        self._body["params"]["context"]["result"] = list(items)
        (answer,) = self._running.predict(self._body)
        assert len({one["id"] for one in answer["result"]}) == len(answer["result"])
        refused = self._running.error(PROJECT) is not None
        assert refused or not answer["result"] or answer["model_version"] == VERSION
        return answer["result"]  # type: ignore[no-any-return]

    def draft(self, *regions: dict[str, Any]) -> None:
        self.task["drafts"] = [{"result": list(regions)}] if regions else []


@pytest.fixture
def drawing(running: Running, payload: Any) -> Drawing:
    body = payload("predict_interactive_textarea_ui")["body"]
    assert (int(body["project"].split(".")[0]), body["tasks"][0]["id"]) == (PROJECT, TASK)
    return Drawing(running, body)


def said(running: Running) -> str:
    state = running.services.notices.get(PROJECT)
    assert state.doing is None
    return state.error or state.last or ""


def test_one_example_finds_all_alike(running: Running, drawing: Drawing, sam3: Sam3) -> None:
    sam3.found = [instance(FIRST, 0.9), instance(OTHER, 0.71), instance((483.0, 290.0, 560.0, 430.0), 0.6)]
    own, other, further = drawing.ask(drawn("a"))
    assert own["id"] == "a" and near(own["value"], TRUTH) and own["score"] == 0.9, "tightened under its own id"
    assert near(other["value"], SECOND) and other["from_name"] == "like" and other["score"] == 0.71
    assert other["value"]["rectanglelabels"] == further["value"]["rectanglelabels"] == ["Ball"]
    assert "like the drawn box 0.71" in other["meta"]["text"][0]
    (ask,) = sam3.asked
    (concept,) = ask.concepts
    assert concept.phrase == "" and len(concept.exemplars) == 1 and not concept.negatives and ask.lane == "click"
    assert concept.exemplars[0] == pytest.approx((179.2, 110.4, 332.8, 273.6))
    assert ask.segmenter == "sam3" and not ask.masks
    assert "2 more Ball like the drawn in" in said(running)
    asked = running.services.suggestions.of_task(PROJECT, TASK)
    assert {one["region_id"] for one in asked} == {"a", other["id"], further["id"]}


def test_the_label_goes_with_the_boxes_where_the_tag_says_so(drawing: Drawing, sam3: Sam3) -> None:
    drawing.ask(drawn("a"), options='model_phrase="true" model_score_threshold="0.2"')
    assert sam3.asked[0].concepts[0].phrase == "Ball" and sam3.asked[0].threshold == 0.2


def test_an_example_that_shows_no_instance_stays_as_drawn(running: Running, drawing: Drawing, sam3: Sam3) -> None:
    sam3.found = [instance(OTHER)]
    own, other = drawing.ask(drawn("a"))
    assert own == drawn("a") and near(other["value"], SECOND)
    sam3.found = []
    assert drawing.ask(drawn("b")) == [drawn("b")] and "no further Ball like the drawn" in said(running)


def test_two_that_wait_are_two_examples_and_an_accepted_one_is_none(drawing: Drawing, sam3: Sam3) -> None:
    sam3.found = [instance(FIRST, 0.9), instance(OTHER, 0.8)]
    drawing.ask(drawn("a"))
    own, second = drawing.ask(drawn("a"), drawn("b", SECOND))
    assert (own["id"], second["id"]) == ("a", "b") and len(sam3.asked[-1].concepts[0].exemplars) == 2
    accepted = [own, second]
    drawing.draft(*accepted)
    (third,) = drawing.ask(*accepted, drawn("c", {"x": 4.0, "y": 62.0, "width": 15.0, "height": 22.0}))
    assert third["id"] == "c" and len(sam3.asked[-1].concepts[0].exemplars) == 1, "what stands is not repeated"


def test_negatives_belong_to_the_label_before_them(running: Running, drawing: Drawing, sam3: Sam3) -> None:
    sam3.found = lambda ask: [
        instance(FIRST, 0.9),
        *([] if ask.concepts[0].negatives else [instance(OTHER, 0.6)]),
        instance(THIRD, 0.7),
    ]
    _, third, wrong = drawing.ask(drawn("a"))
    assert near(wrong["value"], SECOND)
    negative = drawn("n", SECOND, "Not this")
    answer = drawing.ask(negative)
    assert [one["id"] for one in answer] == ["a", third["id"], "n"], "the whole set anew; what was known keeps its id"
    assert answer[-1] == negative and near(answer[0]["value"], TRUTH)
    (concept,) = sam3.asked[-1].concepts
    assert concept.negatives == (pytest.approx(OTHER),) and concept.exemplars == (
        pytest.approx((179.2, 110.4, 332.8, 273.6)),
    )
    drawing.ask(drawn("a"), drawn("b", LOOSE))
    assert len(sam3.asked[-1].concepts[0].negatives) == 1, "a further example keeps them"
    drawing.ask(drawn("c", SECOND, "Cup"))
    assert not sam3.asked[-1].concepts[0].negatives, "they are not another label's"
    drawing.ask(negative, drawn("m", LOOSE, "Not this"))
    assert sam3.asked[-1].concepts[0].negatives == (pytest.approx((179.2, 110.4, 332.8, 273.6)),)


def test_what_was_accepted_before_a_negative_is_not_repeated(drawing: Drawing, sam3: Sam3) -> None:
    sam3.found = [instance(FIRST, 0.9), instance(OTHER, 0.6)]
    own, other = drawing.ask(drawn("a"))
    moved = {**other, "value": {**other["value"], "width": 12.0}}  # a person made it smaller
    drawing.draft(own, moved)
    negative = drawn("n", {"x": 2.0, "y": 2.0, "width": 5.0, "height": 5.0}, "Not this")
    (again, last) = drawing.ask(negative)
    assert last == negative and again["id"] not in ("a", other["id"]), "whoever changed a region keeps it"


def test_a_negative_alone_is_refused_in_a_sentence(running: Running, drawing: Drawing, sam3: Sam3) -> None:
    negative = drawn("n", SECOND, "Not this")
    assert drawing.ask(negative) == [negative] and not sam3.asked, "what was drawn stays"
    assert "'Not this' alone says nothing: first draw around one" in (running.error(PROJECT) or "")


def test_a_negative_that_was_taken_away_counts_no_more(drawing: Drawing, sam3: Sam3) -> None:
    drawing.ask(drawn("a"))
    drawing.ask(drawn("n", SECOND, "Not this"))
    assert drawing.ask() == []
    drawing.ask(drawn("a"))
    assert not sam3.asked[-1].concepts[0].negatives


def test_turned_boxes_are_asked_by_their_hull_and_stay_turned(drawing: Drawing, sam3: Sam3) -> None:
    sam3.found = [instance(FIRST)]
    turned = drawn("a", {"x": 40.0, "y": 22.0, "width": 18.0, "height": 26.0, "rotation": 30.0})
    (own,) = drawing.ask(turned)
    assert own == turned
    x0, y0, x1, y1 = sam3.asked[0].concepts[0].exemplars[0]
    assert x1 - x0 == pytest.approx(6.4 * 18 * 0.866 + 4.8 * 26 * 0.5, abs=0.1) and y0 == pytest.approx(105.6)
    assert y1 > y0


def test_polygons_where_the_tag_says_so(drawing: Drawing, sam3: Sam3) -> None:
    sam3.found = [instance(FIRST, 0.9), instance(OTHER, 0.7)]
    own, other = drawing.ask(drawn("a"), options='model_output="polygon"')
    assert own["id"] == "a" and own["type"] == other["type"] == "polygonlabels" and sam3.asked[0].masks
    assert own["from_name"] == "polygon" and own["value"]["polygonlabels"] == ["Ball"]


@pytest.mark.parametrize(
    "place",
    [
        {"x": 10.0, "y": 10.0, "width": 0.0, "height": 5.0},
        {"x": 110.0, "y": 10.0, "width": 5.0, "height": 5.0},
        {"x": 10.0, "y": 10.0, "width": 5.0},
        {"x": "x", "y": 10.0, "width": 5.0, "height": 5.0},
    ],
)
def test_bad_boxes_are_refused_in_a_sentence(
    running: Running, drawing: Drawing, sam3: Sam3, place: dict[str, Any]
) -> None:
    item = drawn("a")
    item["value"] = {**place, "rectanglelabels": ["Ball"]}
    assert drawing.ask(item) == [item] and not sam3.asked, "what was drawn stays"
    assert (running.error(PROJECT) or "").endswith(".") and "unexpected" not in (running.error(PROJECT) or "")


def test_negatives_are_taken_out_at_submission(
    running: Running, drawing: Drawing, payload: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    done = threading.Event()
    monkeypatch.setattr(
        tator_ml.prompts.leftovers, "remove_leftovers", lambda *given: (asked.append(given), done.set())
    )
    result = [drawn("a"), drawn("n", SECOND, "Not this"), drawn("k", SECOND, "Cup")]
    event = payload("webhook_ANNOTATION_CREATED")["body"]
    event["annotation"] |= {"id": 7, "task": TASK, "result": result}
    event["project"]["label_config"] = CONFIG.format("")
    assert running.client.post("/webhook", json=event).status_code == 200 and done.wait(5)
    _, number, task, submitted, kept = asked[0]
    assert (number, task, submitted) == (7, TASK, result)
    assert [one["id"] for one in kept] == ["a", "k"]


def test_examples_are_forgotten_in_time_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tator_ml.words.examples_drawn.REMEMBERED", 2)
    known = DrawnExamples(seconds=0.05)
    for task in range(3):
        known.positive((1, task, "like"), "Ball", [drawn("a")])
    assert known.negative((1, 0, "like"), {"n": FIRST}) is None and known.negative((1, 2, "like"), {"n": FIRST})
    time.sleep(0.06)
    assert known.negative((1, 2, "like"), {"n": FIRST}) is None
