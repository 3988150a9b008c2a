"""``/tweak`` in the prompt field, over the captured request: standing boxes come back under their own ids."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tator_ml.engine.head import HeadError
from tator_ml.engine.messages import Ask, Verdict
from tator_ml.prompts.assists import AssistError
from tator_ml.words.commands import last_text, on_screen, unquoted
from tests.wire.conftest import TRUTH, Running, near

LOOSE = {"x": 28.0, "y": 23.0, "width": 24.0, "height": 34.0}
SECOND = {"x": 60.0, "y": 60.0, "width": 30.0, "height": 30.0}  # the other bright rectangle, to the pixel
BESIDE = {"x": 57.0, "y": 57.0, "width": 36.0, "height": 36.0}
EMPTY = {"x": 2.0, "y": 80.0, "width": 10.0, "height": 10.0}


def box(name: str, label: str, place: dict[str, float], **more: Any) -> dict[str, Any]:
    return {
        "id": name, "from_name": "rect", "to_name": "image", "type": "rectanglelabels", "original_width": 640,
        "original_height": 480, "image_rotation": 0, "value": {**place, "rotation": 0, "rectanglelabels": [label]},
        **more,
    }  # fmt: skip


@pytest.fixture
def typed(payload: Any) -> Any:
    """The captured request with other words, and with regions in a draft."""

    def request(words: str | list[str], *regions: dict[str, Any], **sources: Any) -> dict[str, Any]:
        body = payload("predict_interactive_textarea_ui")["body"]
        texts = [words] if isinstance(words, str) else words
        body["params"]["context"]["result"][0]["value"]["text"] = texts
        body["tasks"][0]["predictions"] = []
        body["tasks"][0].update(sources or {"drafts": [{"result": list(regions)}]})
        return body  # type: ignore[no-any-return]

    return request


def regions_of(running: Running, body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    (result,) = running.predict(body)
    assert len({region["id"] for region in result["result"]}) == len(result["result"])
    return {region["id"]: region for region in result["result"]}


def test_the_boxes_of_the_captured_prediction_are_tightened_under_their_ids(running: Running, payload: Any) -> None:
    body = payload("predict_interactive_textarea_ui")["body"]
    body["params"]["context"]["result"][0]["value"]["text"] = ["/tweak"]
    newest = body["tasks"][0]["predictions"][-1]["result"]
    newest[0]["value"].update(LOOSE)
    newest[1]["value"].update(BESIDE)
    newest[2]["value"].update(EMPTY)
    answered = regions_of(running, body)
    assert set(answered) == {newest[0]["id"], newest[1]["id"]}, "of two predictions the newest; what is kept stays"
    assert near(answered[newest[0]["id"]]["value"], TRUTH) and near(answered[newest[1]["id"]]["value"], SECOND)
    assert answered[newest[0]["id"]]["value"]["rectanglelabels"] == ["Ball"]
    assert "IoU" in answered[newest[0]["id"]]["meta"]["text"][-1]
    state = running.services.notices.get(2)
    assert state.error is None and state.doing is None and state.last is not None
    assert state.last.startswith("2 of 3 boxes tightened in") and "1 kept (nothing seen)" in state.last
    rows = running.services.suggestions.of_task(2, body["tasks"][0]["id"])
    assert {row["region_id"] for row in rows} == set(answered) and rows[0]["model_version"] == "bright-1+toy-head-1"


def test_all_of_them_or_those_of_a_class(running: Running, typed: Any) -> None:
    boxes = box("a", "Ball", LOOSE), box("b", "Cup", BESIDE)
    for words in ("/tweak", "/tweak all", "/TWEAK  All", ["/tweak ball", "/tweak all"]):
        assert set(regions_of(running, typed(words, *boxes))) == {"a", "b"}, words
    for words in ("/tweak Cup", "/tweak cups", '/tweak "Cup"', "/tweak “cup”", ["x", "/tweak Cup"]):
        answered = regions_of(running, typed(words, *boxes))
        assert set(answered) == {"b"} and near(answered["b"]["value"], SECOND), words


def test_a_class_of_two_words_with_and_without_quotes(running: Running, typed: Any) -> None:
    for words in ('/tweak "Traffic light"', "/tweak traffic_light"):
        body = typed(words, box("a", "Traffic light", LOOSE), box("b", "Cup", BESIDE))
        body["label_config"] = body["label_config"].replace('value="Ball"', 'value="Traffic light"')
        assert set(regions_of(running, body)) == {"a"}


def test_an_unknown_class_changes_nothing_and_the_known_ones_are_named(running: Running, typed: Any) -> None:
    assert regions_of(running, typed("/tweak Bicycle", box("a", "Ball", LOOSE))) == {}
    error = running.error(2) or ""
    assert "'Bicycle'" in error and "Ball, Box, Cup" in error
    assert not running.segmenter.decoded and not running.services.suggestions.of_task(2, 9)


def test_a_record_that_cannot_be_read_keeps_nothing_from_being_tightened(running: Running, typed: Any) -> None:
    running.services.suggestions.close()
    assert set(regions_of(running, typed("/tweak", box("a", "Ball", LOOSE)))) == {"a"}


def test_what_is_no_command_is_said(running: Running, typed: Any) -> None:
    said = {"/find cars": "/tweak", "/": "/tweak, /forget"}
    for words, sentence in said.items():
        assert regions_of(running, typed(words, box("a", "Ball", LOOSE))) == {}
        assert sentence in (running.error(2) or "")


def test_the_extra_call_after_a_command_is_answered_with_nothing(running: Running, typed: Any) -> None:
    body = typed("/tweak", box("a", "Ball", LOOSE))
    body["params"]["context"]["result"] = []
    assert running.predict(body)[0]["result"] == []


def test_what_the_guard_keeps_is_left_out(running: Running, typed: Any) -> None:
    running.segmenter.quality = 0.3
    assert regions_of(running, typed("/tweak", box("a", "Ball", LOOSE), box("b", "Cup", BESIDE))) == {}
    assert "0 of 2 boxes" in (running.services.notices.get(2).last or "")
    assert "low quality" in (running.services.notices.get(2).last or "")


def test_a_tight_box_is_left_out(running: Running, typed: Any) -> None:
    assert regions_of(running, typed("/tweak", box("b", "Cup", SECOND))) == {}
    assert "1 tight already" in (running.services.notices.get(2).last or "")


def test_only_upright_rectangles_that_are_not_locked(running: Running, typed: Any) -> None:
    polygon = {"id": "p", "from_name": "poly", "to_name": "image", "type": "polygonlabels",
               "value": {"points": [[1, 1], [9, 1], [9, 9]], "polygonlabels": ["Ball"]}}  # fmt: skip
    turned, broken = box("r", "Ball", LOOSE), box("x", "Ball", {"x": 1.0})
    turned["value"]["rotation"] = 20
    locked = box("l", "Ball", BESIDE, readonly=True)
    answered = regions_of(running, typed("/tweak", polygon, turned, broken, locked, box("a", "Ball", LOOSE)))
    assert set(answered) == {"a"}
    assert regions_of(running, typed("/tweak", polygon, turned)) == {}
    assert "stands upright" in (running.error(2) or "")


def test_the_class_head_is_asked_as_the_project_says(running: Running, typed: Any) -> None:
    running.classifier.verdict = Verdict("box", 0.97, (("box", 0.97), ("ball", 0.02)))
    for assists, label in ((("refine", "classify"), "Box"), (("refine",), "Ball"), (None, "Box")):
        running.services.projects.choose(2, assists=assists)
        answered = regions_of(running, typed("/tweak", box("a", "Ball", LOOSE), box("kept", "Ball", EMPTY)))
        assert answered["a"]["value"]["rectanglelabels"] == [label] and near(answered["a"]["value"], TRUTH)
        if label == "Box":  # a class is offered for a box that keeps its place too
            assert answered["a"]["score"] == 0.97
            assert answered["kept"]["value"] == {**EMPTY, "rotation": 0, "rectanglelabels": ["Box"]}
        else:
            assert set(answered) == {"a"}


def test_a_head_that_cannot_answer_leaves_the_boxes(
    running: Running, typed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = running.engine.answer

    def without(ask: Ask) -> Any:
        if ask.classify:
            raise HeadError("The head is damaged.")
        return answer(ask)

    monkeypatch.setattr(running.engine, "answer", without)
    answered = regions_of(running, typed("/tweak", box("a", "Ball", LOOSE)))
    assert near(answered["a"]["value"], TRUTH) and "damaged" in (running.services.notices.get(2).last or "")


def test_a_plain_rectangle_keeps_its_pair_and_what_else_belongs_to_it(running: Running, typed: Any) -> None:
    place = {**LOOSE, "rotation": 0}
    common = {"id": "a", "to_name": "image", "original_width": 640, "original_height": 480}
    pair = [
        {**common, "from_name": "rect", "type": "rectangle", "value": place},
        {**common, "from_name": "kind", "type": "labels", "value": {**place, "labels": ["Box"]}},
        {**common, "from_name": "size", "type": "choices", "value": {**place, "choices": ["small"]}},
    ]
    body = typed("/tweak box", *pair)
    body["label_config"] = (
        '<View><Image name="image" value="$image"/><Labels name="kind" toName="image"><Label value="Box"/></Labels>'
        '<Rectangle name="rect" toName="image"/><TextArea name="prompt" toName="image"/>'
        '<Choices name="size" toName="image" perRegion="true"><Choice value="small"/></Choices></View>'
    )
    plain, labelled, size = running.predict(body)[0]["result"]
    assert {plain["id"], labelled["id"], size["id"]} == {"a"}
    assert all(near(one["value"], TRUTH) for one in (plain, labelled, size))
    assert labelled["value"]["labels"] == ["Box"] and size["value"]["choices"] == ["small"]


def test_a_persons_note_on_a_box_stays_and_our_own_lines_are_renewed(running: Running, typed: Any) -> None:
    noted = [
        "occluded, ask Kim",
        "Ball 0.40 · Box 0.35",
        "mask quality 0.70",
        "tightened: IoU 0.61 with the box before",
    ]
    answered = regions_of(running, typed("/tweak", box("a", "Ball", LOOSE, meta={"text": noted, "more": 1})))
    first, *ours = answered["a"]["meta"]["text"]
    assert first == noted[0] and len(ours) == 2 and answered["a"]["meta"]["more"] == 1
    answered = regions_of(running, typed("/tweak", box("a", "Ball", LOOSE, meta={"text": "mine"})))
    assert answered["a"]["meta"]["text"][0] == "mine"


def test_the_annotation_on_the_screen_is_taken() -> None:
    def holder(at: str, *names: str, **more: Any) -> dict[str, Any]:
        return {"updated_at": at, "result": [{"id": one} for one in names], **more}

    def seen(**task: Any) -> list[str]:
        return [item["id"] for item in on_screen(task, "prompt")]

    first, second = holder("2026-01-01", "a", id=1), holder("2026-01-02", "b", id=2)
    assert seen(annotations=[first]) == ["a"]
    assert seen(annotations=[first], drafts=[holder("2026-01-03", "a", "new", annotation=1)]) == ["a", "new"]
    assert seen(annotations=[first], drafts=[holder("2026-01-03", "new", annotation=1)]) == ["new"], "a was deleted"
    assert seen(annotations=[first, holder("2026-01-02", "a", "c", id=3)]) == ["a", "c"], "copies share their ids"
    assert seen(annotations=[first, holder("2026-01-02", id=4)]) == ["a"], "an empty one has nothing to be meant"
    for task in ({"annotations": [first, second]}, {"annotations": [first], "drafts": [second]}):
        with pytest.raises(AssistError, match="type it again"):
            seen(**task)
    with_prompt = holder("2026-01-01", "mine", "prompt")
    assert seen(annotations=[first, second], drafts=[with_prompt]) == ["mine", "prompt"]
    assert seen(predictions=[holder("2026-01-03", "p"), holder("2026-01-01", "q")]) == ["q"]
    assert seen(predictions=[holder("2026-01-03", "p")], annotations=[first]) == ["a"]
    assert seen() == [] and on_screen({"annotations": None, "drafts": [None, {"result": None}]}) == []


def test_words_are_read_as_they_come() -> None:
    assert (
        last_text({"value": {"text": ["one", " /tweak "]}}) == "/tweak" and last_text({"value": {"text": "x"}}) == "x"
    )
    assert last_text({}) == last_text({"value": {"text": []}}) == last_text({"value": None}) == ""
    assert unquoted("ALL") is None and unquoted("") is None and unquoted('"all"') == "all"
    assert unquoted("'a b'") == "a b" and unquoted("don't") == "don't" and unquoted('"') == '"'


def test_many_boxes_go_in_steps_and_clicks_come_between(running: Running, typed: Any, payload: Any) -> None:
    """A click in the middle of a command waits for one step at most."""
    click = payload("predict_interactive_keypoint_ui")["body"]
    click["label_config"] = click["label_config"].replace('name="kp"', 'name="kp" model_output="box"')
    click["params"]["context"]["result"][0]["value"].update(x=40.0, y=40.0)
    running.predict(click)
    running.segmenter.decoded.clear()
    boxes = [box(f"b{n}", "Ball", {**LOOSE, "x": 28 + 0.01 * n}) for n in range(100)]
    answered: dict[str, Any] = {}
    begun = time.monotonic()
    worker = threading.Thread(target=lambda: answered.update(regions_of(running, typed("/tweak", *boxes))))
    worker.start()
    waits, told = [], set[str]()
    while worker.is_alive():
        at = time.monotonic()
        assert len(running.predict(click)[0]["result"]) == 1
        waits.append(time.monotonic() - at)
        told.add(running.services.notices.get(2).doing or "")
        time.sleep(0.05)
    worker.join()
    assert len(answered) == 100 and all(near(one["value"], TRUTH) for one in answered.values())
    assert sum("of 100 boxes" in said for said in told) > 1, "the strip tells how far it is"
    sizes = [len(one) // 5 for one in running.segmenter.decoded if one.boxes is not None]
    assert sum(sizes) == 100 and max(sizes) <= 32 and len(waits) >= 3
    print(f"\n100 boxes in {time.monotonic() - begun:.1f} s, {len(waits)} clicks between: slowest {max(waits):.2f} s")
    assert running.engine.status().clicks == 1 + len(waits), "a command's steps are no clicks"


def test_when_time_runs_out_what_is_done_is_answered_and_the_rest_comes_first_next_time(
    running: Running, typed: Any
) -> None:
    running.predict(typed("/tweak", box("warm", "Ball", LOOSE)))
    decode = running.segmenter.decode

    def slowly(*given: Any) -> Any:
        time.sleep(0.2)
        return decode(*given)

    running.segmenter.decode = slowly  # type: ignore[method-assign]
    object.__setattr__(running.services, "settings", running.services.settings.model_copy(
        update={"answer_timeout_seconds": 1.0}
    ))  # fmt: skip
    boxes = [box(f"b{n}", "Ball", LOOSE) for n in range(12)]
    first = regions_of(running, typed("/tweak", *boxes))
    assert 0 < len(first) < 12 and "time ran out before" in (running.services.notices.get(2).last or "")
    time.sleep(0.3)  # the step that was given up
    second = regions_of(running, typed("/tweak", *boxes))
    assert second and not set(second) & set(first)
