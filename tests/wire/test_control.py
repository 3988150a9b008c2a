"""The control API with its description, the figures for Prometheus, and the strip's switches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from tator_ml.engine.segmenters import SEGMENTERS
from tator_ml.web.app import create_app
from tator_ml.web.openapi import document
from tator_sdk.connect import strip_key
from tator_sdk.settings import Settings

from .conftest import INSIDE, Running


def app_of(running: Running) -> Flask:
    return running.client.application


def test_the_document_names_every_route(running: Running) -> None:
    described = running.client.get("/tator/api/openapi.json").json
    assert described["openapi"] == "3.1.0"
    found = {(path, method) for path, about in described["paths"].items() for method in about}
    wanted = {
        (rule.rule.replace("<int:", "{").replace("<", "{").replace(">", "}"), method.lower())
        for rule in app_of(running).url_map.iter_rules()
        if rule.rule.startswith("/tator/api")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert found == wanted and len(found) >= 10
    names = set(described["components"]["schemas"])

    def references(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                yield part["$ref"].rpartition("/")[2]
            for one in part.values():
                yield from references(one)
        elif isinstance(part, list):
            for one in part:
                yield from references(one)

    assert set(references(described)) <= names and {"Status", "Choices", "Budget"} <= names
    for about in described["paths"].values():
        for operation in about.values():
            assert operation["summary"].endswith(".") or ":" in operation["summary"]
            assert operation["operationId"] and "200" in operation["responses"]
    ids = [operation["operationId"] for about in described["paths"].values() for operation in about.values()]
    assert len(ids) == len(set(ids))


def test_a_route_that_is_not_described_is_found(running: Running) -> None:
    app = Flask("other")
    app.add_url_rule("/tator/api/secret", "secret", lambda: "x")
    with pytest.raises(ValueError, match="secret"):
        document(app)


def test_choices_change_one_at_a_time(running: Running) -> None:
    route = "/tator/api/projects/1"
    assert running.client.put(route, json={"segmenter": "sam2-tiny"}).json["segmenter"] == "sam2-tiny"
    assert running.client.put(route, json={"preload": False}).json["segmenter"] == "sam2-tiny"
    chosen = running.client.put(route, json={"assists": ["refine"], "segmenter": None}).json
    assert (chosen["assists"], chosen["preload"], chosen["segmenter"]) == (["refine"], False, None)
    assert running.client.get(route).json == chosen
    assert set(running.client.get("/tator/api/segmenters").json["names"]) == set(SEGMENTERS)


@pytest.mark.parametrize(
    "body",
    [{"segmenter": "sam9"}, {"asists": []}, {"preload": "perhaps"}, {"output": "circle"}, [], {"assists": ["x"]}],
)
def test_choices_that_do_not_exist_are_refused_with_a_sentence(running: Running, body: object) -> None:
    answer = running.client.put("/tator/api/projects/1", json=body)
    assert answer.status_code == 400 and answer.json["error"].endswith(".")
    plain = running.client.put("/tator/api/projects/1", data="{}", content_type="text/plain")
    assert plain.status_code == 400


def test_the_budget_is_set_while_it_runs(running: Running) -> None:
    assert running.client.put("/tator/api/budget", json={"budget_bytes": 12345}).json["budget_bytes"] == 12345
    assert running.client.get("/tator/api/status").json["budget_bytes"] == 12345
    assert running.client.put("/tator/api/budget", json={"budget_bytes": -1}).status_code == 400


def test_heads_and_jobs_are_listed(running: Running) -> None:
    assert running.client.get("/tator/api/models?project=1").json == {"heads": []}
    assert running.client.get("/tator/api/models?project=x").status_code == 400
    assert "Redis" in running.client.get("/tator/api/jobs").json["error"]


def figures(running: Running) -> dict[str, float]:
    page = running.client.get("/metrics")
    assert page.status_code == 200 and page.mimetype == "text/plain"
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
    }


def test_figures_for_prometheus(running: Running, payload: Any) -> None:
    body = payload("predict_interactive_keypoint_ui")["body"]
    body["params"]["context"]["result"][0]["value"].update(INSIDE)
    running.predict(body)
    body["params"]["context"]["result"][0]["value"].update(x=500)
    running.predict(body)
    watch = app_of(running).extensions["tator_watch"]
    watch._status = running.engine.status()
    found = figures(running)
    assert found["tator_requests_total answered"] == 1 and found["tator_requests_total refused"] == 1
    assert found["tator_request_seconds_count points click"] == 2
    assert found["tator_pictures_total encoded"] == 1 and found["tator_evictions_total"] == 0
    assert found["tator_waiting click"] == 0 and found["tator_bytes budget"] > 0


def test_figures_can_be_switched_off_and_stand_behind_the_password(running: Running, settings: Settings) -> None:
    for change, status in (({"enable_metrics": False}, 404), ({"password": "x"}, 401)):
        changed = Settings.model_validate({**settings.model_dump(), **change})
        app = create_app(changed, running.services)
        assert app.test_client().get("/metrics").status_code == status
        app.extensions["tator_watch"].stop()


def strip(running: Running, body: Any = None, project: int = 1, **how: Any) -> Any:
    query = f"?project={project}&key={strip_key(running.services.settings, project)}"
    if body is None and not how:
        return running.client.get("/strip/state" + query).json
    return running.client.post("/strip/choices" + query, **({"json": body} | how))


def test_switches_of_the_strip(running: Running, payload: Any) -> None:
    assert strip(running)["choices"] == {
        "classify": True,
        "refine": True,
        "preload": True,
        "output": None,
        "words": None,
    }
    assert strip(running, {"classify": False}).json["choices"]["classify"] is False
    assert running.services.projects.get(1).assists == ("refine",)
    assert strip(running, {"refine": False}).json["choices"]["refine"] is False
    assert strip(running, {"classify": True, "preload": False}).json["choices"]["preload"] is False
    chosen = running.services.projects.get(1)
    assert chosen.assists == ("classify",) and not running.services.preloads_for(chosen)


def test_two_switches_at_once_are_both_turned(running: Running) -> None:
    for _ in range(5):
        running.services.projects.choose(1, assists=None)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda name: strip(running, {name: False}), ("classify", "refine")))
        assert running.services.projects.get(1).assists == ()


def test_a_point_becomes_what_the_strip_says(running: Running, payload: Any) -> None:
    body = payload("predict_interactive_keypoint_ui")["body"] | {"project": "1.1"}
    body["params"]["context"]["result"][0]["value"].update(INSIDE)
    running.predict(body)
    outputs = strip(running)["outputs"]
    assert len(outputs) > 1
    types = {"box": "rectanglelabels", "polygon": "polygonlabels", "mask": "brushlabels"}
    for row, kind in enumerate(outputs):
        assert strip(running, {"output": kind}).json["choices"]["output"] == kind
        body["params"]["context"]["result"][0]["id"] = f"new{row}"
        assert running.predict(body)[0]["result"][0]["type"] == types[kind]


@pytest.mark.parametrize(
    "how",
    [
        {"json": {"head": "x"}},
        {"json": {"classify": 1}},
        {"json": {}},
        {"json": []},
        {"json": {"output": "circle"}},
        {"data": '{"classify": false}', "content_type": "text/plain", "json": None},
    ],
)
def test_a_strip_takes_only_its_switches(running: Running, how: Any) -> None:
    how = {name: value for name, value in how.items() if value is not None}
    query = f"?project=1&key={strip_key(running.services.settings, 1)}"
    assert running.client.post("/strip/choices" + query, **how).status_code == 400
    assert running.services.projects.get(1).assists is None


def test_a_key_opens_one_project(running: Running, settings: Settings) -> None:
    locked = Settings.model_validate({**settings.model_dump(), "password": "x"})
    app = create_app(locked, running.services)
    for project, status in ((1, 200), (2, 403)):
        query = f"?project={project}&key={strip_key(locked, 1)}"
        assert app.test_client().post("/strip/choices" + query, json={"classify": False}).status_code == status
    app.extensions["tator_watch"].stop()
