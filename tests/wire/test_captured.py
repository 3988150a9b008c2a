"""Every captured request is served, and each answer is what the editor needs."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tator_ml.engine.messages import Verdict
from tests.wire.conftest import INSIDE, TRUTH, PictureServer, Running, near


def test_health_says_up(running: Running) -> None:
    assert running.client.get("/health").json["status"] == "UP"


def test_setup_answers_the_model_version(running: Running, payload: Any) -> None:
    body = payload("setup")["body"]
    answers = [
        running.client.post("/setup", json={**body, "extra_params": extra})
        for extra in (None, '{"a": 1}', {"a": 1}, "not json")
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert set(answers[0].json) == {"model_version"}


def test_versions_is_a_list(running: Running) -> None:
    assert isinstance(running.client.get("/versions").json["versions"], list)


@pytest.mark.parametrize(
    "name",
    [
        "webhook_ANNOTATION_CREATED",
        "webhook_ANNOTATION_UPDATED",
        "webhook_ANNOTATIONS_DELETED",
        "webhook_START_TRAINING",
    ],
)
def test_webhooks_are_taken(running: Running, payload: Any, name: str) -> None:
    assert running.client.post("/webhook", json=payload(name)["body"]).status_code == 200


def test_an_unknown_action_is_ignored(running: Running) -> None:
    assert running.client.post("/webhook", json={"action": "SOMETHING_NEW", "project": 4}).status_code == 200


def test_one_point_becomes_a_region_of_the_first_output(running: Running, payload: Any) -> None:
    body = payload("predict_interactive_keypoint_ui")["body"]
    body["params"]["context"]["result"][0]["value"].update(INSIDE)
    (result,) = running.predict(body)
    (region,) = result["result"]
    # the captured configuration has brush labels first
    assert region["from_name"] == "brush" and region["type"] == "brushlabels"
    assert region["value"]["brushlabels"] == ["Ball"] and region["value"]["format"] == "rle"
    assert (region["original_width"], region["original_height"]) == (640, 480)
    assert region["id"] == body["params"]["context"]["result"][0]["id"], "so that the editor replaces the point"
    assert result["model_version"] == "bright-1+toy-head-1"


def test_points_go_to_the_tag_that_model_output_names(running: Running, payload: Any) -> None:
    body = payload("predict_interactive_keypoint_ui")["body"]
    body["label_config"] = body["label_config"].replace(
        '<KeyPointLabels name="kp"', '<KeyPointLabels name="kp" model_output="box"'
    )
    body["params"]["context"]["result"][0]["value"].update(INSIDE)
    (region,) = running.predict(body)[0]["result"]
    assert region["type"] == "rectanglelabels" and near(region["value"], TRUTH)
    assert region["meta"]["text"][0] == "Ball 0.40 · Box 0.35"
    body["label_config"] = body["label_config"].replace('model_output="box"', 'model_output="polygon"')
    (region,) = running.predict(body)[0]["result"]
    assert region["type"] == "polygonlabels" and len(region["value"]["points"]) == 4


def test_several_points_with_a_negative_one_are_one_object(running: Running, payload: Any) -> None:
    body = payload("predict_interactive_multipoint_ui")["body"]
    body["tasks"][0]["data"]["image"] = "/picture.png"
    items = body["params"]["context"]["result"]
    for item, (x, y) in zip(items, [(40, 40), (35, 30), (75, 75), (45, 50)], strict=True):
        item["value"].update(x=x, y=y)
    (region,) = running.predict(body)[0]["result"]
    prompts = running.segmenter.decoded[-1]
    assert prompts.labels is not None and prompts.labels.tolist() == [[1, 1, 0, 1]]
    first = running.predict({**body, "params": {"context": {"result": items[:1]}}})[0]["result"][0]
    assert first["id"] == region["id"], "a further point must change the same region"


def test_a_box_is_refined_under_its_own_id(running: Running, payload: Any) -> None:
    body = payload("predict_interactive_rectangle_ui")["body"]
    drawn = body["params"]["context"]["result"][0]
    drawn["value"].update(x=28.0, y=23.0, width=24.0, height=34.0)
    (region,) = running.predict(body)[0]["result"]
    assert region["id"] == drawn["id"] and near(region["value"], TRUTH)
    assert region["value"]["rectanglelabels"] == ["Box"]


def test_a_box_that_the_guard_holds_comes_back_as_drawn(running: Running, payload: Any) -> None:
    running.segmenter.quality = 0.3
    body = payload("predict_interactive_rectangle_ui")["body"]
    drawn = body["params"]["context"]["result"][0]
    drawn["value"].update(x=28.0, y=23.0, width=24.0, height=34.0)
    (region,) = running.predict(body)[0]["result"]
    assert {key: region["value"][key] for key in TRUTH} == {key: drawn["value"][key] for key in TRUTH}
    assert "drawn box kept" in region["meta"]["text"][-1]


def test_a_confident_head_corrects_the_label(running: Running, payload: Any) -> None:
    running.classifier.verdict = Verdict("ball", 0.97, (("ball", 0.97),))
    body = payload("predict_interactive_rectangle_ui")["body"]
    body["params"]["context"]["result"][0]["value"].update(x=28.0, y=23.0, width=24.0, height=34.0)
    (region,) = running.predict(body)[0]["result"]
    assert region["value"]["rectanglelabels"] == ["Ball"] and region["score"] == 0.97


def test_boxes_that_stand_already_are_not_answered_again(running: Running, payload: Any) -> None:
    body = payload("predict_interactive_rectangle_ui")["body"]
    new = body["params"]["context"]["result"][0]
    new["value"].update(x=28.0, y=23.0, width=24.0, height=34.0)
    drafted = body["tasks"][0]["drafts"][0]["result"]
    standing = [item for item in drafted if item["type"] == "rectanglelabels" and item["id"] != new["id"]]
    body["params"]["context"]["result"] = [*standing, new]
    assert [region["id"] for region in running.predict(body)[0]["result"]] == [new["id"]]


def test_an_accepted_box_is_left_alone_and_a_pending_one_is_answered_again(running: Running, payload: Any) -> None:
    body = payload("predict_interactive_rectangle_ui")["body"]
    first = body["params"]["context"]["result"][0]
    first["value"].update(x=28.0, y=23.0, width=24.0, height=34.0)
    (answered,) = running.predict(body)[0]["result"]
    second = {**first, "id": "second", "value": {**first["value"], "x": 58.0, "y": 58.0}}
    body["params"]["context"]["result"] = [first, second]
    assert len(running.predict(body)[0]["result"]) == 2, "the first still waits as it was drawn"
    accepted = {**first, "value": answered["value"]}
    body["params"]["context"]["result"] = [accepted, {**second, "id": "third"}]
    assert [region["id"] for region in running.predict(body)[0]["result"]] == ["third"]


def test_no_prompt_left_means_an_empty_answer(running: Running, payload: Any) -> None:
    body = payload("predict_interactive_keypoint_ui")["body"]
    body["params"]["context"]["result"] = []
    assert running.predict(body)[0]["result"] == []


def test_a_batch_warms_every_picture_and_stores_nothing(running: Running, payload: Any) -> None:
    body = payload("predict_batch")["body"]
    results = running.predict(body)
    assert results == [[]] * len(body["tasks"]), "an empty result would be stored as an empty prediction"
    for _ in range(100):
        if running.engine.status().warm:
            break
        time.sleep(0.02)
    assert len(running.engine.status().warm) == 1, "all tasks show the same picture: encoded once"
    assert running.engine.status().encodings == 1


def test_opening_a_task_does_not_wait_for_its_picture(running: Running, pictures: PictureServer, payload: Any) -> None:
    body = payload("predict_batch")["body"]
    body["tasks"] = body["tasks"][:1]
    body["tasks"][0]["data"]["image"] = "/slow"
    pictures.slow.add("/slow")
    begun = time.monotonic()
    assert running.predict(body) == [[]]
    assert time.monotonic() - begun < 0.9, "a picture may take a second"


def test_predictions_are_refined_where_the_project_asks_for_it(running: Running, payload: Any) -> None:
    body = payload("predict_batch")["body"]
    body["label_config"] = body["label_config"].replace(
        '<RectangleLabels name="rect"', '<RectangleLabels name="rect" model_on_open="refine"'
    )
    body["tasks"] = body["tasks"][1:2]
    (box,) = body["tasks"][0]["predictions"][0]["result"]
    box["value"].update(x=28.0, y=23.0, width=24.0, height=34.0)
    (result,) = running.predict(body)
    (region,) = result["result"]
    assert region["id"] == box["id"] and near(region["value"], TRUTH) and region["value"]["rectanglelabels"] == ["Ball"]
    assert result["model_version"] == "bright-1+toy-head-1"


def test_every_suggestion_is_recorded_with_its_prompt(running: Running, payload: Any) -> None:
    body = payload("predict_interactive_rectangle_ui")["body"]
    drawn = body["params"]["context"]["result"][0]
    drawn["value"].update(x=28.0, y=23.0, width=24.0, height=34.0)
    running.predict(body)
    (row,) = running.services.suggestions.of_task(1, body["tasks"][0]["id"])
    assert row["prompt_ids"] == [drawn["id"]] and row["model_version"] == "bright-1+toy-head-1"


def test_a_tweak_replaces_the_standing_box_in_place(running: Running, payload: Any) -> None:
    body = payload("predict_interactive_keypoint_ui")["body"]
    body["label_config"] = body["label_config"].replace(
        '<KeyPointLabels name="kp"', '<KeyPointLabels name="kp" model_assist="tweak"'
    )
    box = {
        "id": "standing1",
        "from_name": "rect",
        "to_name": "image",
        "type": "rectanglelabels",
        "value": {"x": 28, "y": 23, "width": 24, "height": 34, "rotation": 0, "rectanglelabels": ["Ball"]},
        "meta": {"text": ["mind the lace", "mask quality 0.11"], "seen": True},
    }
    body["tasks"][0]["drafts"] = [{"result": [box]}]
    body["params"]["context"]["result"][0]["value"].update(INSIDE)
    (region,) = running.predict(body)[0]["result"]
    assert region["id"] == "standing1" and region["from_name"] == "rect" and near(region["value"], TRUTH)
    note, *ours = region["meta"]["text"]
    assert note == "mind the lace" and ours and "mask quality 0.11" not in ours and region["meta"]["seen"]
    body["params"]["context"]["result"][0]["value"].update(x=5, y=95)
    assert running.predict(body)[0]["result"] == [] and "no box under" in (running.error() or "")


def test_the_newer_dialect(running: Running, payload: Any) -> None:
    body = payload("predict_interactive_keypoint_ui")["body"]
    body["params"]["context"] = {"event": "capabilities"}
    (value,) = [item["value"] for item in running.predict(body)[0]["result"]]
    assert value["prompts"] == ["point", "box"] and {"tag": "rect", "output": "bbox"} in value["targets"]
    body["params"]["context"] = {"event": "prewarm"}
    assert running.predict(body)[0]["result"] == []
    point = {
        "id": "p",
        "from_name": "kp",
        "to_name": "image",
        "type": "keypointlabels",
        "value": {**INSIDE, "positive": True, "keypointlabels": ["Ball"]},
    }
    body["params"]["context"] = {"result": [point]}
    (region,) = running.predict(body)[0]["result"]
    assert region["value"]["imageDataURL"].startswith("data:image/png;base64,")
    body["params"]["context"] = {"event": "release"}
    assert running.predict(body)[0]["result"] == []


def test_the_token_goes_to_label_studio(running: Running, pictures: PictureServer, payload: Any) -> None:
    running.predict(payload("predict_batch")["body"])
    for _ in range(100):
        if pictures.asked:
            break
        time.sleep(0.02)
    assert pictures.asked and all(token == "Token legacy" for _, token in pictures.asked)


def test_a_plain_rectangle_with_shared_labels_is_two_results_with_one_id(running: Running, payload: Any) -> None:
    body = payload("predict_interactive_rectangle_ui")["body"]
    body["label_config"] = (
        '<View><Image name="image" value="$image"/><Labels name="kind" toName="image"><Label value="Box"/></Labels>'
        '<Rectangle name="rect" toName="image"/></View>'
    )
    drawn = body["params"]["context"]["result"][0]
    drawn.update(type="rectangle")
    drawn["value"].update(x=28.0, y=23.0, width=24.0, height=34.0, labels=["Box"])
    plain, labelled = running.predict(body)[0]["result"]
    assert (plain["type"], labelled["type"], labelled["from_name"]) == ("rectangle", "labels", "kind")
    assert plain["id"] == labelled["id"] == drawn["id"] and labelled["value"]["labels"] == ["Box"]
    assert near(plain["value"], TRUTH) and near(labelled["value"], TRUTH)
