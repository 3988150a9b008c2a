"""What is a list, what is a prompt, and what becomes of each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tator_ml.vlm.parsing import Detected, answer, parse
from tator_ml.vlm.prompts import FORMATS, NothingToLookFor, PromptStyle, bare_list, compose

CLASSES = ["car", "bus", "Traffic light", "find waldo", "cat, domestic", "salt and pepper"]
STYLE = PromptStyle(
    "Be brief.", "Find {items} in the {image_type}. {extra_context}", "aerial photograph", "It is dusk."
)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("car", ("car",)),
        ("car, bus, kiosk", ("car", "bus", "kiosk")),
        ("Cars; BUSES", ("car", "bus")),
        ("- traffic_lights\n- kiosk", ("Traffic light", "kiosk")),
        ("1. car\n2) bus", ("car", "bus")),
        ("car, a bus, and the kiosk", ("car", "bus", "kiosk")),
        ("car, bus or kiosk", ("car", "bus", "kiosk")),
        ("car and bus", ("car", "bus")),
        ("black and white cow", ("black and white cow",)),
        ("salt and pepper", ("salt and pepper",)),
        ("all cars", ("car",)),
        ("car, cars", ("car",)),
        ("person with helmet", ("person with helmet",)),
        ("box", ("box",)),
        ("find waldo", ("find waldo",)),
        ("cat, domestic", ("cat, domestic",)),
        ("汽车，公交车", ("汽车", "公交车")),  # noqa: RUF001
        ("car,, bus ,", ("car", "bus")),
    ],
)
def test_lists(text: str, items: tuple[str, ...]) -> None:
    assert bare_list(text, CLASSES) == items


@pytest.mark.parametrize(
    "text",
    [
        "Find all cars",
        "find cars, buses",
        "car, bus.",
        "Where is the dog?",
        "cars that are red",
        "car, but not parked",
        "Locate: car, bus",
        "red cars on the left side",
        'the sign "STOP"',
        '{"a": 1}',
        "car\nGive me the bus",
        ",;",
    ],
)
def test_prompts_of_their_own(text: str) -> None:
    assert bare_list(text, CLASSES) is None
    composed = compose(text, CLASSES, STYLE, "bbox")
    assert composed.user == f"{text}\n{FORMATS['bbox']}"
    assert (composed.system, composed.items) == ("Be brief.", None)


def test_a_list_goes_through_the_template() -> None:
    composed = compose("cars, kiosk", CLASSES, STYLE, "point")
    assert composed.user == f"Find car, kiosk in the aerial photograph. It is dusk.\n{FORMATS['point']}"
    assert composed.items == ("car", "kiosk")


def test_empty_text_asks_for_all_classes() -> None:
    assert compose("  \n", CLASSES, STYLE, "bbox").items == tuple(CLASSES)
    with pytest.raises(NothingToLookFor, match="Type what to look for"):
        compose("", [], STYLE, "bbox")


def test_a_format_of_their_own_is_left_alone() -> None:
    for text in ("Find the cars, answer in JSON.", "Give bbox_2d of each car."):
        assert compose(text, CLASSES, STYLE, "bbox").user == text


def test_braces_in_words_are_words() -> None:
    style = PromptStyle(template='{items} {0} {"a": 1} {other}', image_type="{items}", extra_context="{items}")
    assert compose("", ["{image_type}", "{}"], style, "bbox").user.startswith(
        '{image_type}, {} {0} {"a": 1} {other}\nAnswer'
    )


@given(st.text(max_size=200), st.lists(st.text(min_size=1, max_size=20), max_size=5))
def test_any_text_is_composed(text: str, classes: list[str]) -> None:
    try:
        composed = compose(text, classes, STYLE, "bbox")
    except NothingToLookFor:
        assert not text.strip() and not classes
        return
    if composed.items is None:
        assert text.strip() in composed.user
    else:
        assert all(item in composed.user for item in composed.items)


places = st.floats(-50, 2000)
labels = st.text(st.characters(exclude_categories=["Cs", "Zs", "Zl", "Zp", "Cc"]), max_size=20)


@given(st.lists(st.tuples(labels, places, places, places, places), max_size=12))
def test_what_is_trained_is_what_is_read(rows: list[tuple[str, float, float, float, float]]) -> None:
    targets = [Detected(label, (a, b, c, d), (a, b)) for label, a, b, c, d in rows]
    boxes, points = parse(answer(targets, "bbox")), parse(answer(targets, "point"))
    assert boxes.complete and points.complete and not boxes.problems + points.problems
    for target, box, point in zip(targets, boxes.detections, points.detections, strict=True):
        assert target.box and target.point
        assert box == Detected(target.label, tuple(map(round, target.box)))  # type: ignore[arg-type]
        assert point == Detected(target.label, None, tuple(map(round, target.point)))  # type: ignore[arg-type]


def test_only_what_is_there_is_written() -> None:
    assert answer([], "bbox") == "[]"
    with pytest.raises(ValueError, match="no point"):
        answer([Detected("car", (0, 0, 1, 1))], "point")
