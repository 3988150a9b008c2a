"""Where a head disagrees with a person, and what is offered then."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from label_config.reader import read
from tator_ml.quality.disagreements import disagreements, prediction
from tator_sdk.annotations import labelled_boxes
from tests.learning.material import CONFIG, DIM, head_of, rectangle

INTERFACE = read(CONFIG)
PAIRED = read("""<View><Image name="image" value="$image"/><Rectangle name="boxes" toName="image"/>
<Labels name="labels" toName="image"><Label value="Car"/><Label value="Van"/><Label value="Bus"/></Labels>
<Choices name="state" toName="image" perRegion="true"><Choice value="Blurred"/></Choices>
<TextArea name="note" toName="image" perRegion="true"/></View>""")


def found(results: list[Any], axes: list[int], interface: Any = INTERFACE, **how: Any) -> Any:
    boxes = labelled_boxes(results, interface)
    assert len(boxes) == len(axes)
    return disagreements(
        how.pop("head", head_of()), boxes, np.eye(DIM, dtype=np.float32)[axes], results, interface, **how
    )


def test_only_sure_and_different_answers_are_doubts() -> None:
    results = [rectangle("same", "Car"), rectangle("other", "Car"), rectangle("unsure", "Car")]
    (doubt,) = found(results, [0, 1, 9])
    assert (doubt.box.region, doubt.label) == ("other", "Van") and doubt.probability > 0.9 > 0.1 > doubt.given
    assert found(results, [0, 1, 9], least_probability=0.9999) == []
    assert found([], []) == []


def test_the_most_doubtful_comes_first() -> None:
    results = [rectangle("a", "Car"), rectangle("b", "Bus")]
    head = head_of()
    head.weight[:, 4] = 0, 6, 3  # on axis 4 the head takes Van, and Bus before Car
    rows = found(results, [4, 4], head=head)
    assert [one.box.region for one in rows] == ["a", "b"] and rows[0].given < rows[1].given


def test_classes_that_one_side_does_not_know_are_no_doubt() -> None:
    assert found([rectangle("a", "Bus")], [1], head=head_of(("Car", "Van"))) == [], "the head never saw a Bus"
    assert found([rectangle("a", "Car")], [1], head=head_of(("Car", "Lorry"))) == [], "no such label"
    (doubt,) = found([rectangle("a", "Car")], [1], head=head_of(("Car", "vans")))
    assert doubt.label == "Van", "as the configuration names it"


def test_background_is_no_doubt() -> None:
    assert found([rectangle("a", "Car")], [1], head=head_of(background="Van")) == []


def test_what_is_offered_is_the_doubtful_region_with_the_heads_label() -> None:
    results = [rectangle("a", "Car"), rectangle("b", "Bus", 50), {"type": "relation"}, None]
    doubts = found([results[0], results[1]], [1, 2])
    offered = prediction(7, doubts, results, "head-1/check")
    assert offered["task"] == 7 and offered["model_version"] == "head-1/check"
    (item,) = offered["result"]
    assert item["id"] == "a" and item["value"] == results[0]["value"] | {"rectanglelabels": ["Van"]}  # type: ignore[index]
    assert item["original_width"] == 640 and "Car" in item["meta"]["text"][0]
    assert offered["score"] == pytest.approx(doubts[0].given, abs=1e-4)
    assert results[0]["value"]["rectanglelabels"] == ["Car"], "the annotation itself is left alone"  # type: ignore[index]


def paired(order: list[int]) -> list[Any]:
    """A plain rectangle, its label, and what else was said about the same region."""
    place = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0}
    parts = [
        {"type": "rectangle", "from_name": "boxes", "value": place},
        {"type": "labels", "from_name": "labels", "value": {**place, "labels": ["Car"]}},
        {"type": "choices", "from_name": "state", "value": {**place, "choices": ["Blurred"]}},
        {"type": "textarea", "from_name": "note", "value": {**place, "text": ["behind a tree"]}},
    ]
    shared = {"id": "r", "to_name": "image", "original_width": 640, "original_height": 480}
    return [{**shared, **parts[index]} for index in order]


@pytest.mark.parametrize("order", [[0, 1], [1, 0], [0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_what_else_was_said_about_a_region_is_kept(order: list[int]) -> None:
    results = paired(order)
    doubts = found(results, [1], PAIRED)
    assert [one.label for one in doubts] == ["Van"]
    values = {item["type"]: item["value"] for item in prediction(7, doubts, results, "v")["result"]}
    assert values["labels"]["labels"] == ["Van"] and "labels" not in values["rectangle"]
    assert values.get("choices", {}).get("choices", ["Blurred"]) == ["Blurred"]
    assert values.get("textarea", {}).get("text", ["behind a tree"]) == ["behind a tree"]
