"""Points before and after their object is accepted: which id answers them, which of them still ask."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import tator_ml.prompts.leftovers
from tator_ml.prompts.leftovers import without_leftovers

from .conftest import INSIDE, Running


class Clicks:
    """Clicks on the captured task, each time with all points that stand on the canvas."""

    def __init__(self, running: Running, body: Any, output: str) -> None:
        self._running = running
        self._body = body
        self.task = body["tasks"][0]
        body["label_config"] = body["label_config"].replace('name="kp"', f'name="kp" model_output="{output}"')
        self._template = body["params"]["context"]["result"][0]

    def point(self, name: str) -> dict[str, Any]:
        return {**self._template, "id": name, "value": {**self._template["value"], **INSIDE}}

    def ask(self, *points: dict[str, Any] | str) -> tuple[str | None, int]:
        """The answer's id, and how many points were decoded."""
        decoded = len(self._running.segmenter.decoded)
        items = [self.point(one) if isinstance(one, str) else one for one in points]
        self._body["params"]["context"]["result"] = items
        regions = self._running.predict(self._body)[0]["result"]
        if not regions:
            assert len(self._running.segmenter.decoded) == decoded
            return None, 0
        labels = self._running.segmenter.decoded[-1].labels
        assert labels is not None
        return regions[0]["id"], labels.shape[1]


@pytest.fixture
def body(payload: Any) -> Any:
    return payload("predict_interactive_keypoint_ui")["body"]


@pytest.mark.parametrize("output", ["mask", "polygon"])
def test_a_mask_takes_its_points_place(running: Running, body: Any, output: str) -> None:
    clicks = Clicks(running, body, output)
    assert clicks.ask("a") == ("a", 1)
    assert clicks.ask("a", "b") == ("a", 2)
    assert clicks.ask("b") == (None, 0), "the small tick made a region of the first, and the editor asks with the rest"
    assert clicks.ask("b", "c") == ("c", 1)
    assert clicks.ask("b", "c", "d") == ("c", 2)


def test_a_box_never_takes_its_points_place(running: Running, body: Any) -> None:
    clicks = Clicks(running, body, "box")
    answered, decoded = clicks.ask("a")
    assert answered not in {None, "a"} and decoded == 1, "the editor would keep a point that calls itself a rectangle"
    assert clicks.ask("a", "b") == (answered, 2)
    clicks.task["drafts"] = [{"result": [clicks.point("a"), {"id": answered, "type": "rectanglelabels"}]}]
    other, decoded = clicks.ask("a", "b", "c")
    assert other not in {None, "c", answered} and decoded == 1, "the first object was accepted, its points are done"
    clicks.task["drafts"] = []
    assert clicks.ask("a", "b") == (None, 0), "and they stay so"


def test_points_in_a_draft_still_ask(running: Running, body: Any) -> None:
    clicks = Clicks(running, body, "mask")
    clicks.task["drafts"] = [{"result": [clicks.point("a")]}]
    assert clicks.ask("a") == ("a", 1)
    assert clicks.ask("a", "b") == ("a", 2)


def test_points_that_were_loaded_with_the_page_do_not_ask(running: Running, body: Any) -> None:
    clicks = Clicks(running, body, "mask")
    loaded = {key: value for key, value in clicks.point("loaded").items() if key != "is_positive"}
    clicks.task["annotations"] = [{"result": [clicks.point("submitted")]}]
    assert clicks.ask(loaded, "submitted", "new") == ("new", 1)


POINT = {"id": "p", "type": "keypointlabels"}
BOX = {"id": "r", "type": "rectanglelabels"}
ASKED = {"region_id": "r", "prompt_ids": ["p"]}


@pytest.mark.parametrize(
    ("result", "suggested", "kept"),
    [
        ([POINT, BOX], [ASKED], [BOX]),
        ([POINT, BOX], [], [POINT, BOX]),  # nobody's prompt: a key point that is wanted
        ([POINT], [ASKED], [POINT]),  # pending when submitted: the point is all there is
        ([{**POINT, "id": "r"}, BOX], [], [BOX]),  # the label written twice
        ([{"id": "p", "type": "keypoint"}, {"id": "p", "type": "labels"}, BOX], [ASKED], [BOX]),
        ([{"id": "p", "type": "brushlabels"}, POINT | {"id": "q"}], [{"region_id": "p", "prompt_ids": ["p", "q"]}],
         [{"id": "p", "type": "brushlabels"}]),
        ([BOX | {"id": "s"}, BOX], [{"region_id": "r", "prompt_ids": ["s", "r"]}], [BOX | {"id": "s"}, BOX]),
        ([{"type": "relation", "from_id": "r", "to_id": "s"}, BOX], [ASKED],
         [{"type": "relation", "from_id": "r", "to_id": "s"}, BOX]),
    ],
)  # fmt: skip
def test_what_is_left_over(result: Any, suggested: Any, kept: Any) -> None:
    assert without_leftovers(result, suggested) == kept


@pytest.mark.parametrize("action", ["ANNOTATION_CREATED", "ANNOTATION_UPDATED"])
def test_a_submitted_annotation_is_freed_of_them(
    running: Running, body: Any, payload: Any, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    asked: list[int] = []
    done = threading.Event()
    monkeypatch.setattr(
        tator_ml.prompts.leftovers, "remove_leftovers", lambda settings, number, *_: (asked.append(number), done.set())
    )
    clicks = Clicks(running, body, "box")
    answered, _ = clicks.ask("a")
    event = payload("webhook_ANNOTATION_CREATED")["body"] | {"action": action}
    event["annotation"] |= {"id": 7, "task": clicks.task["id"], "result": [clicks.point("a")]}
    assert running.client.post("/webhook", json=event).status_code == 200
    event["annotation"]["result"].append({"id": answered, "type": "rectanglelabels"})
    assert running.client.post("/webhook", json=event).status_code == 200
    assert done.wait(5) and asked == [7]


def test_a_webhook_of_nonsense_changes_nothing(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.services.tidier, "tidy", lambda *_: pytest.fail("nothing to remove"))
    for annotation in (
        None,
        [],
        {},
        {"id": 1},
        {"id": "1", "task": 1, "result": []},
        {"id": 1, "task": 1, "result": [1]},
    ):
        event = {"action": "ANNOTATION_CREATED", "annotation": annotation, "project": {"id": 1}}
        assert running.client.post("/webhook", json=event).status_code == 200
