"""``model_oriented``: answers are rectangles turned with their object, from boxes and from clicks."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from tator_sdk.geometry import iou_of_masks
from tator_sdk.regions import read_box

from .conftest import PictureServer, Running

CENTER, SIDES, TURN = (320.0, 240.0), (200.0, 80.0), 30.0


@pytest.fixture
def turned(pictures: PictureServer) -> np.ndarray:
    """A bright rectangle turned by 30 degrees; its corners."""
    corners = cv2.boxPoints((CENTER, SIDES, TURN))
    pixels = np.full((480, 640, 3), 20, np.uint8)
    cv2.fillPoly(pixels, [corners.astype(np.int32)], (230, 230, 230))
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    pictures.answers["/picture"] = (200, stream.getvalue())
    return np.asarray(corners)


def asked(payload: Any, name: str, tag: str, options: str) -> Any:
    body = payload(name)["body"]
    assert f"<{tag} " in body["label_config"]
    body["label_config"] = body["label_config"].replace(f"<{tag} ", f"<{tag} {options} ")
    body["tasks"][0]["data"] = dict.fromkeys(body["tasks"][0]["data"], "/picture")
    return body


def near(value: Any, corners: np.ndarray) -> bool:
    box = read_box(value, (640, 480))
    painted = [np.zeros((480, 640), np.uint8) for _ in range(2)]
    for canvas, points in zip(painted, (box.corners(), corners), strict=True):
        cv2.fillPoly(canvas, [points.round().astype(np.int32)], 1)
    return iou_of_masks(painted[0] > 0, painted[1] > 0) > 0.93


def draw(body: Any, corners: np.ndarray) -> None:
    (x0, y0), (x1, y1) = corners.min(0).tolist(), corners.max(0).tolist()
    value = body["params"]["context"]["result"][0]["value"]
    value.update(x=x0 / 6.4, y=y0 / 4.8, width=(x1 - x0) / 6.4, height=(y1 - y0) / 4.8, rotation=0)


def test_a_drawn_box_is_turned(running: Running, payload: Any, turned: np.ndarray) -> None:
    body = asked(payload, "predict_interactive_rectangle_ui", "RectangleLabels", 'model_oriented="true"')
    draw(body, turned)
    region = running.predict(body)[0]["result"][0]
    assert region["type"] == "rectanglelabels" and near(region["value"], turned)
    assert min(abs(region["value"]["rotation"] - TURN), abs(region["value"]["rotation"] - 300)) < 2
    assert region["id"] == body["params"]["context"]["result"][0]["id"], "in the drawn one's place"


def test_without_the_option_it_stays_upright(running: Running, payload: Any, turned: np.ndarray) -> None:
    body = asked(payload, "predict_interactive_rectangle_ui", "RectangleLabels", 'model_oriented="false"')
    draw(body, turned)
    assert running.predict(body)[0]["result"][0]["value"].get("rotation", 0) == 0


@pytest.mark.parametrize("tag", ["KeyPointLabels", "RectangleLabels"])
def test_a_click_gives_a_turned_box(running: Running, payload: Any, turned: np.ndarray, tag: str) -> None:
    """Whether the tool's tag says so or the one that takes the answer."""
    body = asked(payload, "predict_interactive_keypoint_ui", tag, 'model_oriented="true"')
    body["label_config"] = body["label_config"].replace("<KeyPointLabels ", '<KeyPointLabels model_output="box" ')
    body["params"]["context"]["result"][0]["value"].update(x=50.0, y=50.0)
    region = running.predict(body)[0]["result"][0]
    assert region["type"] == "rectanglelabels" and near(region["value"], turned)
