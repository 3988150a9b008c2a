"""Bad requests: the annotator gets one sentence, nothing is lost, and the process lives on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.wire.conftest import TRUTH, Body, PictureServer, Running, answers, fails, near, prompt, save


def test_unknown_tag(standing: Running, click: Body) -> None:
    prompt(click)["from_name"] = "nowhere"
    assert fails(standing, click, '"nowhere"') == []


def test_unknown_label_keeps_the_drawn_box(standing: Running, box: Body) -> None:
    prompt(box)["value"]["rectanglelabels"] = ["Spoon"]
    (region,) = fails(standing, box, "'Spoon'")
    assert region["id"] == prompt(box)["id"] and region["value"]["x"] == 28.0


def test_unknown_image(standing: Running, click: Body) -> None:
    prompt(click)["to_name"] = "other"
    fails(standing, click, '"other"')


def test_empty_result_and_no_context(standing: Running, click: Body) -> None:
    click["params"]["context"]["result"] = []
    assert standing.predict(click)[0]["result"] == [] and standing.error() is None
    click["params"] = {}
    assert standing.predict(click) == [[]]


@pytest.mark.parametrize(("x", "y"), [(0, 0), (100, 100), (100.4, 50), (-0.5, 20)])
def test_points_on_the_border_are_taken(standing: Running, click: Body, x: float, y: float) -> None:
    prompt(click)["value"].update(x=x, y=y)
    standing.predict(click)
    assert "Nothing was found" in (standing.error() or ""), "the border of this scene is dark"


@pytest.mark.parametrize(("x", "y"), [(150, 50), (-20, 50), (50, 1e9)])
def test_points_outside(standing: Running, click: Body, x: float, y: float) -> None:
    prompt(click)["value"].update(x=x, y=y)
    fails(standing, click, "outside the picture")


@pytest.mark.parametrize("x", ["left", None, [1], {}])
def test_points_that_are_no_numbers(standing: Running, click: Body, x: object) -> None:
    prompt(click)["value"]["x"] = x
    fails(standing, click, "no usable 'x'")


def test_points_that_are_not_finite(standing: Running, click: Body) -> None:
    prompt(click)["value"]["x"] = math.inf
    fails(standing, click, "not a finite number")


def test_only_negative_points(standing: Running, click: Body) -> None:
    prompt(click)["is_positive"] = False
    fails(standing, click, "negative")


def test_prompt_without_coordinates(standing: Running, click: Body) -> None:
    prompt(click)["value"] = None
    fails(standing, click, "no coordinates")


@pytest.mark.parametrize("size", [{"width": 0}, {"height": 0}, {"width": 0, "height": 0}])
def test_boxes_without_area(standing: Running, box: Body, size: Body) -> None:
    prompt(box)["value"].update(size)
    fails(standing, box, "no area")


def test_inverted_box_is_put_in_order(running: Running, box: Body) -> None:
    prompt(box)["value"].update(x=52.0, y=57.0, width=-24.0, height=-34.0)
    assert near(answers(running, box)["value"], TRUTH)


def test_box_partly_outside(running: Running, box: Body, pictures: PictureServer) -> None:
    pixels = np.full((480, 640, 3), 20, np.uint8)
    pixels[120:264, 0:128] = 230
    pictures.answers["/picture"] = (200, save(Image.fromarray(pixels), "PNG"))
    prompt(box)["value"].update(x=-4.0, y=23.0, width=26.0, height=34.0)
    assert near(answers(running, box)["value"], {"x": 0, "y": 25, "width": 20, "height": 30})


def test_box_smaller_than_a_pixel_comes_back(running: Running, box: Body) -> None:
    prompt(box)["value"].update(x=40.0, y=40.0, width=0.01, height=0.01)
    region = answers(running, box)
    assert region["value"]["width"] == 0.01


def test_rotated_rectangle_keeps_its_turn(running: Running, box: Body, pictures: PictureServer) -> None:
    import cv2

    pixels = np.full((480, 640, 3), 20, np.uint8)
    corners = cv2.boxPoints(((320.0, 240.0), (200.0, 80.0), 30.0)).astype(np.int32)
    cv2.fillPoly(pixels, [corners], (230, 230, 230))
    pictures.answers["/picture"] = (200, save(Image.fromarray(pixels), "PNG"))
    along, down = np.array([math.cos(math.radians(30)), 0.5]), np.array([-0.5, math.cos(math.radians(30))])
    x, y = np.array([320, 240]) - 110 * along - 48 * down
    prompt(box)["value"].update(
        x=100 * x / 640, y=100 * y / 480, width=100 * 220 / 640, height=100 * 96 / 480, rotation=30
    )
    value = answers(running, box)["value"]
    assert abs(value["rotation"] - 30) < 2
    assert abs(value["width"] * 6.4 - 200) < 4 and abs(value["height"] * 4.8 - 80) < 4


@pytest.mark.parametrize("body", [b"{", b"", b"[1, 2]", b"null", b'"text"', b"\xff\xfe", b"{'a': 1}"])
def test_malformed_json(standing: Running, body: bytes) -> None:
    for path in ("/predict", "/setup", "/webhook"):
        answer = standing.client.post(path, data=body, content_type="application/json")
        assert answer.status_code == 400 and "JSON" in answer.json["error"]


@pytest.mark.parametrize("tasks", [None, "x", 5, [1, 2], {}])
def test_tasks_that_are_none(standing: Running, tasks: object) -> None:
    answer = standing.client.post("/predict", json={"tasks": tasks})
    assert answer.status_code == 400 and "tasks" in answer.json["error"]


@pytest.mark.parametrize("project", [None, "", "abc", "1.2.3", -4, {"id": 1}, "9" * 40])
def test_wrong_project_value(standing: Running, click: Body, project: object) -> None:
    click["project"] = project
    (result,) = standing.predict(click)
    assert near(result["result"][0]["value"], TRUTH), "the picture and the configuration are in the request"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("", "configuration is empty"),
        ("<View>", "not valid XML: see line 1, column 7"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><View>&a;</View>", "which Tator refuses to read"),
        ("no xml", "not valid XML: see line 1, column 1"),
    ],
)
def test_wrong_configuration(standing: Running, click: Body, config: str, words: str) -> None:
    click["label_config"] = config
    assert fails(standing, click, words) == []


def test_configuration_without_a_tag_for_answers(standing: Running, click: Body) -> None:
    click["label_config"] = (
        '<View><Image name="image" value="$image"/><KeyPointLabels name="kp" toName="image">'
        '<Label value="Ball"/></KeyPointLabels></View>'
    )
    fails(standing, click, "<RectangleLabels>")


def test_one_of_two_tasks_fails(running: Running, click: Body, pictures: PictureServer) -> None:
    pictures.answers["/gone"] = (404, b"")
    good, bad = click["tasks"][0], {**click["tasks"][0], "id": 99, "data": {"image": "/gone"}}
    click["tasks"] = [bad, good]
    first, second = running.predict(click)
    assert first["result"] == [] and near(second["result"][0]["value"], TRUTH)


def test_surprise_inside_is_one_sentence(running: Running, click: Body, monkeypatch: Any) -> None:
    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail /root/x")

    monkeypatch.setattr(running.segmenter, "decode", explode)
    fails(running, click, "unexpected error")
    assert "secret" not in (running.error() or "")


def test_stroke_of_another_size_and_empty_stroke(standing: Running, click: Body) -> None:
    from tator_sdk.regions import encode_rle

    item = prompt(click)
    item.update(from_name="brush", type="brushlabels")
    item["value"] = {"format": "rle", "rle": encode_rle(np.zeros((480, 640), bool)), "brushlabels": ["Ball"]}
    fails(standing, click, "empty")
    item["value"]["rle"] = encode_rle(np.ones((10, 10), bool))
    fails(standing, click, "another size")
    item["value"]["rle"] = [1, 2, "x"]
    fails(standing, click, "could not be read")
    stroke = np.zeros((480, 640), bool)
    stroke[180:200, 210:300] = True
    item["value"]["rle"] = encode_rle(stroke)
    region = answers(standing, click)
    assert region["id"] == item["id"] and region["type"] == "brushlabels"
