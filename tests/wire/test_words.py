"""Words in the prompt field, over the captured request: what the model sees becomes labelled regions, each once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from label_config.build import build
from tator_ml.engine.messages import DetectAsk, Detected, Detection, EngineError, Superseded, Verdict
from tator_ml.projects import KeptWords
from tator_ml.vlm.prompts import FORMATS
from tator_sdk.connect import strip_key
from tests.wire.conftest import TRUTH, PictureServer, Running, near
from tests.wire.test_tweak_command import BESIDE, LOOSE, SECOND, box

FIRST = (192.0, 120.0, 320.0, 264.0)  # the scene's bright rectangles, pixels
OTHER = (384.0, 288.0, 576.0, 432.0)
AROUND_FIRST, AROUND_OTHER = (180.0, 110.0, 333.0, 275.0), (370.0, 270.0, 590.0, 440.0)
VERSION = "tiny-qwen-abc123"
PROJECT, TASK = 2, 9


class Model:
    """The engine's half in words: says what it is told to say, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[DetectAsk] = []
        self.found: list[Detection] = []
        self.more: dict[str, Any] = {}
        self.before: Callable[[DetectAsk], None] = lambda ask: None

    def detect(self, ask: DetectAsk) -> Detected:
        self.asked.append(ask)
        self.before(ask)
        said = Detected(tuple(self.found), "[…]", "end", True, (), 12, 0.1, VERSION, (640, 480))
        return replace(said, **self.more)


@pytest.fixture
def model(running: Running, monkeypatch: pytest.MonkeyPatch) -> Model:
    made = Model()
    monkeypatch.setattr(running.engine, "detect", made.detect, raising=False)
    running.classifier.verdict = Verdict(None, 0.4, (("Ball", 0.4), ("Box", 0.35)))
    return made


@pytest.fixture
def typed(payload: Any) -> Any:
    """The captured request with other words and options, and with regions in a draft."""

    def request(words: str | list[str], *regions: dict[str, Any], options: str = "", config: str = "") -> Any:
        body = payload("predict_interactive_textarea_ui")["body"]
        body["params"]["context"]["result"][0]["value"]["text"] = [words] if isinstance(words, str) else words
        body["tasks"][0].update(predictions=[], drafts=[{"result": list(regions)}] if regions else [])
        body["label_config"] = (config or body["label_config"]).replace(
            '<TextArea name="prompt"', f'<TextArea name="prompt" {options}'
        )
        return body

    return request


def answered(running: Running, body: dict[str, Any]) -> list[dict[str, Any]]:
    (result,) = running.predict(body)
    assert len({one["id"] for one in result["result"]}) == len(result["result"])
    return result["result"]  # type: ignore[no-any-return]


def said(running: Running) -> str:
    state = running.services.notices.get(PROJECT)
    assert state.doing is None
    return state.error or state.last or ""


def test_boxes_as_the_model_gives_them(running: Running, typed: Any, model: Model) -> None:
    model.found = [Detection("balls", FIRST), Detection("CUP", OTHER)]
    ball, cup = answered(running, typed("balls, a cup"))
    assert ball["value"]["rectanglelabels"] == ["Ball"] and near(ball["value"], TRUTH)
    assert cup["value"]["rectanglelabels"] == ["Cup"] and near(cup["value"], SECOND)
    assert ball["type"] == "rectanglelabels" and ball["from_name"] == "rect" and ball["original_width"] == 640
    assert "balls" in ball["meta"]["text"][-1] and "Qwen" in ball["meta"]["text"][-1]
    (ask,) = model.asked
    assert FORMATS["bbox"] in ask.user and ask.lane == "click" and ask.model is None and "Ball, Cup" in ask.user
    assert ask.task == f"{PROJECT}/{TASK}/words" and ask.seconds < 90
    assert "1 Ball, 1 Cup in" in said(running)
    assert running.services.suggestions.of_task(PROJECT, TASK)[0]["region_id"] == ball["id"]


def test_boxes_through_the_segmenter(running: Running, typed: Any, model: Model) -> None:
    model.found = [Detection("Ball", AROUND_FIRST), Detection("Cup", AROUND_OTHER)]
    ball, cup = answered(running, typed("ball, cup", options='model_mode="bbox_sam"'))
    assert near(ball["value"], TRUTH) and near(cup["value"], SECOND)
    assert ball["score"] > 0 and any("mask quality" in line for line in ball["meta"]["text"])


def test_points_through_the_segmenter(running: Running, typed: Any, model: Model) -> None:
    model.found = [
        Detection("Ball", point=(256.0, 190.0)),
        Detection("Cup", point=(480.0, 360.0)),
        Detection("Cup", point=(10.0, 10.0)),
    ]
    ball, cup = answered(running, typed("ball, cup", options='model_mode="point"'))
    assert near(ball["value"], TRUTH) and near(cup["value"], SECOND)
    assert FORMATS["point"] in model.asked[0].user and "1 where the segmenter sees nothing" in said(running)


def test_a_point_is_no_box_but_the_segmenter_takes_it(running: Running, typed: Any, model: Model) -> None:
    model.found = [Detection("Ball", point=(256.0, 190.0)), Detection("Cup", OTHER)]
    (cup,) = answered(running, typed("ball, cup"))
    assert cup["value"]["rectanglelabels"] == ["Cup"] and "1 without a box" in said(running)
    assert len(answered(running, typed("ball, cup", options='model_mode="bbox_sam"'))) == 2


def test_masks_and_polygons_where_the_field_says_so(running: Running, typed: Any, model: Model) -> None:
    model.found = [Detection("Ball", AROUND_FIRST)]
    config = build("all", ["Ball", "Cup"])
    for output, kind in (("mask", "brushlabels"), ("polygon", "polygonlabels")):
        options = f'model_mode="bbox_sam" model_output="{output}"'
        body = typed("ball", options=options, config=config.replace(' model_mode="bbox"', ""))
        (region,) = answered(running, body)
        assert region["type"] == kind and region["value"][kind] == ["Ball"]
    running.services.projects.choose(PROJECT, output="polygon")
    (region,) = answered(running, typed("ball", config=config.replace('mode="bbox"', 'mode="bbox_sam"')))
    assert region["type"] == "polygonlabels", "the project's output, as the strip shows it"
    (region,) = answered(running, typed("ball", config=config))
    assert region["type"] == "rectanglelabels", "a model's own box stays a box"


def test_the_class_head_is_asked_as_the_assists_say(running: Running, typed: Any, model: Model) -> None:
    model.found = [Detection("Ball", FIRST)]
    running.classifier.verdict = Verdict("box", 0.97, (("box", 0.97), ("ball", 0.02)))
    (body,) = running.predict(typed("ball"))
    assert body["result"][0]["value"]["rectanglelabels"] == ["Box"] and body["result"][0]["score"] == 0.97
    assert body["model_version"] == f"{VERSION}+toy-head-1"
    (body,) = running.predict(typed("ball", options='model_assist="refine"'))
    assert body["result"][0]["value"]["rectanglelabels"] == ["Ball"] and body["model_version"] == VERSION
    (body,) = running.predict(typed("ball", options='model_mode="bbox_sam"'))
    assert body["model_version"] == f"{VERSION}+bright-1+toy-head-1"
    running.services.projects.choose(PROJECT, assists=())
    (body,) = running.predict(typed("ball", options='model_mode="bbox_sam"'))
    assert body["result"][0]["value"]["rectanglelabels"] == ["Ball"]
    assert body["model_version"] == f"{VERSION}+bright-1"


def test_what_is_no_label_is_said_and_not_guessed(running: Running, typed: Any, model: Model) -> None:
    model.found = [Detection("Ball", FIRST), Detection("kiosk", OTHER), Detection("", (1.0, 1.0, 9.0, 9.0))]
    (region,) = answered(running, typed("ball, kiosk"))
    assert region["value"]["rectanglelabels"] == ["Ball"]
    assert "2 named 'kiosk', '(no name)', which is no label here" in said(running)
    model.found = [Detection("", FIRST)]
    (region,) = answered(running, typed("balls"))
    assert region["value"]["rectanglelabels"] == ["Ball"], "without a name it is the one thing that was asked for"


def test_names_that_models_use(running: Running, typed: Any, model: Model) -> None:
    config = typed("x")["label_config"].replace('value="Cup"', 'value="C3" predicted_values="cup,mug"')
    model.found = [Detection("mugs", OTHER)]
    (region,) = answered(running, typed("", config=config))
    assert region["value"]["rectanglelabels"] == ["C3"]
    assert "Ball, Box, cup" in model.asked[0].user, "a model knows no C3"


def test_empty_words_and_all_mean_every_class(running: Running, typed: Any, model: Model) -> None:
    for words in ("", "  ", "all", "ALL", "*"):
        answered(running, typed(words))
        assert "Ball, Box, Cup" in model.asked[-1].user
    assert "nothing found for any class" in said(running)
    answered(running, typed("all", config=typed("x")["label_config"].replace('"Cup"', '"all"')))
    assert "Box" not in model.asked[-1].user, "a class of that name is meant"


def test_anything_that_is_no_list_is_the_prompt_itself(running: Running, typed: Any, model: Model) -> None:
    options = 'model_image_type="aerial photograph" model_extra_context="Roofs only."'
    answered(running, typed("Find the ball that lies {beside} the cup.", options=options))
    assert model.asked[-1].user.startswith("Find the ball that lies {beside} the cup.")
    answered(running, typed("ball", options=options))
    assert "aerial photograph" in model.asked[-1].user and "Roofs only." in model.asked[-1].user


def test_each_object_once(running: Running, typed: Any, model: Model) -> None:
    nearly = (193.0, 121.0, 321.0, 265.0)
    model.found = [
        Detection("Ball", FIRST),
        Detection("ball", nearly),
        Detection("Cup", nearly),
        Detection("Cup", OTHER),
    ]
    ball, _ = answered(running, typed("ball, cup"))
    assert "2 twice the same" in said(running)
    corners = [[60, 60], [90, 60], [90, 90], [60, 90]]
    polygon = {
        "id": "p", "from_name": "poly", "to_name": "image", "type": "polygonlabels", "original_width": 640,
        "original_height": 480, "value": {"points": corners, "polygonlabels": ["Cup"]},
    }  # fmt: skip
    assert answered(running, typed("ball, cup", box("a", "Ball", TRUTH), polygon)) == []
    assert said(running).startswith("nothing new for 'ball, cup'") and "4 stood already" in said(running)
    assert len(answered(running, typed("ball, cup", box("a", "Ball", BESIDE), box("b", "Cup", LOOSE)))) == 2
    assert ball["id"] != answered(running, typed("ball, cup"))[0]["id"], "an accepted one is never replaced"


def test_at_most_as_many_as_the_field_says(running: Running, typed: Any, model: Model) -> None:
    places = [(40.0 * n, 10.0, 40.0 * n + 30, 60.0) for n in range(12)]
    model.found = [Detection("lamp", (1, 1, 9, 9))] + [Detection("Ball", one) for one in places]
    assert len(answered(running, typed("ball"))) == 8 and "4 more than model_max_results allows" in said(running)
    assert len(answered(running, typed("ball", options='model_max_results="11"'))) == 11
    assert len(answered(running, typed("ball", options='model_max_results="50"'))) == 12


def test_nothing_found_is_an_answer(running: Running, typed: Any, model: Model) -> None:
    assert answered(running, typed("ball")) == [] and running.error(PROJECT) is None
    assert "nothing found for 'ball'" in said(running)


def test_an_answer_that_was_cut_short_is_used_and_said(running: Running, typed: Any, model: Model) -> None:
    model.found = [Detection("Ball", FIRST)]
    model.more = {"ended": "time", "complete": False, "problems": ("The answer breaks off.",)}
    assert len(answered(running, typed("ball"))) == 1 and "the time was up" in said(running)
    model.more = {"ended": "length", "complete": False}
    assert len(answered(running, typed("ball"))) == 1 and "greatest length" in said(running)


def test_an_answer_that_cannot_be_read_is_an_error_in_a_sentence(running: Running, typed: Any, model: Model) -> None:
    model.more = {"text": "I am sorry,\n I cannot", "complete": False, "problems": ("The answer has no JSON.",)}
    assert answered(running, typed("ball")) == []
    assert "I am sorry, I cannot" in (running.error(PROJECT) or "") and "ask in other words." in said(running)


def test_errors_of_the_engine_reach_the_strip(running: Running, typed: Any, model: Model) -> None:
    def fails(ask: DetectAsk) -> None:
        raise EngineError("Qwen cannot be downloaded here; put it under models.")

    model.before = fails
    assert answered(running, typed("ball")) == []
    assert running.error(PROJECT) == "Qwen cannot be downloaded here; put it under models."


def test_without_a_tag_for_the_answer_the_sentence_says_what_to_add(running: Running, typed: Any, model: Model) -> None:
    config = '<View><Image name="image" value="$image"/><TextArea name="prompt" toName="image"/></View>'
    assert answered(running, typed("ball", config=config)) == []
    assert "<RectangleLabels>" in (running.error(PROJECT) or "") and not model.asked


def test_progress_is_told_and_a_newer_prompt_takes_the_place(running: Running, typed: Any, model: Model) -> None:
    waiting, told = threading.Event(), set[str]()

    def superseded(ask: DetectAsk) -> None:
        assert waiting.wait(5)
        raise Superseded("A newer prompt.")

    model.before = superseded
    results: list[Any] = []
    worker = threading.Thread(target=lambda: results.append(running.predict(typed("ball"))))
    worker.start()
    until = time.monotonic() + 5
    while not told and time.monotonic() < until:
        told |= {running.services.notices.get(PROJECT).doing or ""} - {""}
        time.sleep(0.02)
    waiting.set()
    worker.join()
    assert any("asking Qwen2.5-VL-3B-Instruct" in one for one in told)
    assert results[0][0]["result"] == [] and running.error(PROJECT) is None


def test_the_time_of_label_studio_is_kept(running: Running, typed: Any, model: Model) -> None:
    object.__setattr__(
        running.services, "settings", running.services.settings.model_copy(update={"answer_timeout_seconds": 0.5})
    )
    late = threading.Event()
    model.before = lambda ask: late.wait(5) and None
    begun = time.monotonic()
    assert answered(running, typed("ball")) == [] and time.monotonic() - begun < 2
    late.set()
    assert "loading or busy" in (running.error(PROJECT) or "")


@pytest.fixture
def opened(payload: Any, typed: Any) -> Any:
    """A request about tasks without a prompt, for the configuration of the captured words."""

    def request(count: int = 1, **about: Any) -> dict[str, Any]:
        body = payload("predict_batch")["body"]
        (task, *_) = body["tasks"]
        task["predictions"] = []
        body["tasks"] = [{**task, "id": 100 + n, **about} for n in range(count)]
        body["label_config"], body["project"] = typed("x")["label_config"], f"{PROJECT}.1"
        return body

    return request


def test_kept_words_are_asked_on_the_next_pictures(running: Running, typed: Any, opened: Any, model: Model) -> None:
    model.found = [Detection("Ball", FIRST)]
    assert running.predict(opened()) == [[]] and not model.asked, "nothing is kept yet"
    answered(running, typed("balls", options='model_keep_prompt="true"'))
    assert running.services.projects.get(PROJECT).words == KeptWords("balls", "prompt")
    assert "/forget" in said(running)
    (one,) = running.predict(opened())
    assert near(one["result"][0]["value"], TRUTH) and model.asked[-1].lane == "click"
    version = one["model_version"]
    assert version.startswith(f"{VERSION}+toy-head-1/words-")
    stored = [{"model_version": version, "result": one["result"]}]
    asked = len(model.asked)
    assert running.predict(opened(predictions=stored)) == [[]], "Label Studio has it already"
    assert running.predict(opened(annotations=[{"id": 1, "result": []}])) == [[]], "somebody has labelled it"
    assert len(model.asked) == asked
    several = running.predict(opened(3, annotations=[{"id": 1, "result": []}]))
    assert [len(each["result"]) for each in several] == [1, 1, 1] and model.asked[-1].lane == "batch"
    assert {each["model_version"] for each in several} == {version}
    answered(running, typed("/forget"))
    assert running.services.projects.get(PROJECT).words is None and "'balls' is asked no more" in said(running)
    assert running.predict(opened()) == [[]]


def test_a_model_that_is_away_does_not_cost_what_was_refined(running: Running, opened: Any, model: Model) -> None:
    running.services.choose(PROJECT, words=KeptWords("balls"))

    def away(ask: DetectAsk) -> None:
        raise EngineError("The model is away.")

    model.before = away
    body = opened(predictions=[{"id": 5, "result": [box("a", "Ball", LOOSE)]}])
    body["label_config"] = body["label_config"].replace('name="rect"', 'name="rect" model_on_open="refine"')
    (one,) = running.predict(body)
    assert near(one["result"][0]["value"], TRUTH) and "The model is away." in (running.error(PROJECT) or "")


def test_words_are_counted_in_their_lane(running: Running, typed: Any, model: Model) -> None:
    model.found = [Detection("Ball", FIRST)]
    answered(running, typed("balls"))
    answered(running, typed("/tweak", box("a", "Ball", LOOSE)))
    assert set(running.services.metrics.last_hour.by_kind()) == {("words", "text"), ("batch", "tweak")}


def test_where_kept_words_find_nothing_they_are_not_asked_again(running: Running, opened: Any, model: Model) -> None:
    running.services.choose(PROJECT, words=KeptWords("balls"))
    assert running.predict(opened()) == [[]] and running.predict(opened()) == [[]] and len(model.asked) == 1
    running.services.choose(PROJECT, words=KeptWords("cups"))
    model.found = [Detection("Cup", OTHER)]
    assert len(running.predict(opened())[0]["result"]) == 1


def test_a_selection_is_answered_as_far_as_time_allows(running: Running, opened: Any, model: Model) -> None:
    running.services.choose(PROJECT, words=KeptWords("balls"))
    model.found = [Detection("Ball", FIRST)]
    object.__setattr__(
        running.services, "settings", running.services.settings.model_copy(update={"answer_timeout_seconds": 3.0})
    )
    model.before = lambda ask: time.sleep(0.4)
    results = running.predict(opened(8))
    done = [bool(one) for one in results]
    assert 1 < sum(done) < 8 and done == sorted(done, reverse=True)
    assert "tator prelabel qwen --project 2" in (running.error(PROJECT) or "")


def test_kept_words_of_a_field_that_is_gone(running: Running, opened: Any, model: Model) -> None:
    running.services.choose(PROJECT, words=KeptWords("balls", "other"))
    assert running.predict(opened()) == [[]] and not model.asked
    assert "tator words --project 2 --forget" in (running.error(PROJECT) or "")


def test_kept_words_are_seen_and_changed_from_outside(running: Running, pictures: PictureServer) -> None:
    route = "/tator/api/projects/2"
    chosen = running.client.put(route, json={"words": {"text": "car, bus"}}).json
    assert chosen["words"] == {"text": "car, bus", "field": ""}
    assert running.client.put(route, json={"words": {"txt": "x"}}).status_code == 400
    query = f"?project=2&key={strip_key(running.services.settings, 2)}"
    assert running.client.get("/strip/state" + query).json["choices"]["words"] == "car, bus"
    assert running.client.post("/strip/choices" + query, json={"words": "boat"}).status_code == 400
    assert running.client.post("/strip/choices" + query, json={"words": None}).json["choices"]["words"] is None
    assert running.client.get(route).json["words"] is None
