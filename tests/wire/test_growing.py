"""Requests grow with the regions of a task; what they cost must not."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tator_ml.prompts.pending import _region_ids
from tator_ml.web.body import SOURCES, SlimTask, read_predict

from .conftest import Running


def many_regions(count: int = 300) -> list[dict[str, Any]]:
    """Half polygons, half brush strokes: about a megabyte for 300."""
    drawn = random.Random(1)
    common = {"to_name": "image", "original_width": 640, "original_height": 480, "image_rotation": 0}
    polygons = [
        {"id": f"p{row}", "from_name": "poly", "type": "polygonlabels", **common,
         "value": {"points": [[drawn.random() * 100, drawn.random() * 100] for _ in range(20)]}}
        for row in range(count // 2)
    ]  # fmt: skip
    strokes = [
        {"id": f"b{row}", "from_name": "brush", "type": "brushlabels", **common,
         "value": {"format": "rle", "rle": [drawn.randrange(256) for _ in range(1300)]}}
        for row in range(count - count // 2)
    ]  # fmt: skip
    return [*polygons, *strokes]


@pytest.fixture
def large(payload: Any) -> Any:
    body = payload("predict_interactive_rectangle_ui")["body"]
    regions = many_regions()
    body["tasks"][0]["annotations"] = [{"id": 1, "result": regions[:150]}]
    body["tasks"][0]["drafts"] = [{"id": 2, "result": regions[150:]}]
    body["params"]["context"]["result"][0]["value"].update(x=28.0, y=23.0, width=24.0, height=34.0)
    return body


def test_a_prompt_reads_no_region(running: Running, large: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("the whole request was read")

    monkeypatch.setattr(SlimTask, "_all", refuse)
    raw = json.dumps(large).encode()
    answer = running.client.post("/predict", data=raw, content_type="application/json")
    assert len(raw) > 900_000 and len(answer.json["results"][0]["result"]) == 1


def test_a_tweak_finds_its_box_among_hundreds(running: Running, large: Any) -> None:
    box = dict(large["params"]["context"]["result"][0], id="standing")
    large["tasks"][0]["drafts"][0]["result"].append(box)
    large["label_config"] = large["label_config"].replace('name="kp"', 'name="kp" model_assist="tweak"')
    point = {"x": 40.0, "y": 40.0, "width": 0.3, "keypointlabels": ["Ball"]}
    large["params"]["context"]["result"] = [
        {
            "id": "t",
            "from_name": "kp",
            "to_name": "image",
            "type": "keypointlabels",
            "is_positive": True,
            "value": point,
        }
    ]
    (region,) = running.predict(large)[0]["result"]
    assert region["id"] == "standing"


def test_reading_costs_a_fraction(large: Any) -> None:
    raw = json.dumps(large).encode()

    def seconds(work: Callable[[], object]) -> float:
        times = []
        for _ in range(9):
            begun = time.thread_time()  # whatever else the cores do
            work()
            times.append(time.thread_time() - begun)
        return statistics.median(times)

    assert seconds(lambda: read_predict(raw)) < 0.4 * seconds(lambda: json.loads(raw))


IDS = st.none() | st.integers() | st.text(max_size=3)
REGIONS = st.lists(st.fixed_dictionaries({"type": st.just("x")}, optional={"id": IDS}), max_size=3)
HOLDERS = st.none() | st.lists(st.fixed_dictionaries({}, optional={"result": st.none() | REGIONS}), max_size=3)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.fixed_dictionaries({"id": st.integers()}, optional=dict.fromkeys(SOURCES, HOLDERS)), max_size=3))
def test_it_says_the_same_as_the_whole(tasks: list[dict[str, Any]]) -> None:
    read = read_predict(json.dumps({"tasks": tasks, "project": "3.1", "params": None}).encode())
    assert read["project"] == "3.1" and len(read["tasks"]) == len(tasks)
    for slim, whole in zip(read["tasks"], tasks, strict=True):
        assert isinstance(slim, SlimTask) and slim["id"] == whole["id"]
        for source in SOURCES:
            assert _region_ids(slim, source) == _region_ids(whole, source)
            assert (slim.get(source) or []) == (whole.get(source) or [])
        assert set(slim) == set(whole)


@pytest.mark.parametrize("source", [5, "x", [1], [{"result": 5}], [{"result": [1]}], [{"result": [{"id": {}}]}]])
def test_what_label_studio_never_writes_is_read_patiently(source: object) -> None:
    read = read_predict(json.dumps({"tasks": [{"id": 1, "drafts": source}]}).encode())
    assert read["tasks"] == [{"id": 1, "drafts": source}]


def test_what_was_stepped_over_is_read_once_for_all_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    read = read_predict(json.dumps({"tasks": [{"id": number, "meta": {"n": number}} for number in range(50)]}).encode())
    loads, counted = json.loads, list[int]()
    monkeypatch.setattr("tator_ml.web.body.json.loads", lambda raw: (counted.append(1), loads(raw))[1])
    assert [task["meta"]["n"] for task in read["tasks"]] == list(range(50)) and len(counted) == 1
