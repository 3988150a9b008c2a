"""Tasks that are drawn for the comparison get no assistance, whatever is asked; all others get theirs."""

from __future__ import annotations

from typing import Any

import pytest

from tator_ml.quality.comparison import NO_ASSISTANCE, Comparison

from .conftest import Running

COMPARISON = Comparison(0.3, 5, 0.0)
TASKS = range(1, 25)
BOX = {"x": 28, "y": 23, "width": 24, "height": 34, "rotation": 0, "rectanglelabels": ["Ball"]}
POINT = {"x": 40, "y": 40, "width": 0.5, "keypointlabels": ["Ball"]}


def asked(body: Any, task: int, name: str, kind: str, value: dict[str, Any]) -> Any:
    item = {
        "id": f"prompt{task}", "from_name": name, "to_name": "image", "type": kind, "value": value,
        "original_width": 640, "original_height": 480, "image_rotation": 0,
    }  # fmt: skip
    body["tasks"][0] = {**body["tasks"][0], "id": task, "annotations": [], "drafts": [], "predictions": []}
    body["params"]["context"] = {"result": [item]}
    return body


@pytest.mark.parametrize(("name", "kind", "value"), [("rect", "rectanglelabels", BOX), ("kp", "keypointlabels", POINT)])
def test_drawn_tasks_get_their_drawing_back_or_nothing(
    running: Running, payload: Any, name: str, kind: str, value: dict[str, Any]
) -> None:
    body = payload("predict_interactive_rectangle_ui")["body"]
    body["project"] = "1.5"
    running.services.compare(1, COMPARISON)
    helped = set()
    for task in TASKS:
        (answer,) = running.predict(asked(body, task, name, kind, value))
        same = [item["value"] for item in answer["result"]] == ([BOX] if kind == "rectanglelabels" else [])
        (helped.add(task) if not same else None)
        said = running.services.notices.get(1).withheld
        assert (said == NO_ASSISTANCE) == same
    drawn = {task for task in TASKS if COMPARISON.draws(task)}
    assert 0 < len(drawn) < len(TASKS) and helped == set(TASKS) - drawn
    assert set(running.services.suggestions.tasks(1)) == helped
    state = running.client.get("/strip/state?project=1").json
    assert state is not None and state["withheld"] == (NO_ASSISTANCE if TASKS[-1] in drawn else None)

    running.services.compare(1, None)  # one step ends it
    for task in sorted(drawn):
        (answer,) = running.predict(asked(body, task, name, kind, value))
        assert answer["result"] and answer["result"][0]["value"] != value
    assert running.services.notices.get(1).withheld is None


def test_an_opened_drawn_task_gets_no_kept_answer(running: Running, payload: Any) -> None:
    body = payload("predict_batch")["body"]
    body["project"] = "1.5"
    task = next(task for task in TASKS if COMPARISON.draws(task))
    body["tasks"] = [{**body["tasks"][0], "id": task}]
    running.services.compare(1, COMPARISON)
    assert running.predict(body) == [[]]
    assert running.services.notices.get(1).withheld == NO_ASSISTANCE
