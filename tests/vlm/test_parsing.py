"""Answers as models give them, whole, broken and mad."""

from __future__ import annotations

import json
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tator_ml.vlm.parsing import Detected, Parsed, parse

CAR = Detected("car", (1, 2, 30, 40))
FENCED = (
    '```json\n[\n\t{"bbox_2d": [1, 2, 30, 40], "label": "car"},\n\t{"bbox_2d": [5, 6, 7, 8], "label": "bus"}\n]\n```'
)


@pytest.mark.parametrize(
    ("text", "detections"),
    [
        (FENCED, (CAR, Detected("bus", (5, 6, 7, 8)))),
        ('[{"bbox": [1, 2, 30, 40], "class": "car"}]', (CAR,)),
        ('{"box": [1, 2, 30, 40], "name": "car"}', (CAR,)),
        ('{"detections": [{"bbox_2d": [1, 2, 30, 40], "label": "car"}]}', (CAR,)),
        ('[{"detections": [{"bbox_2d": [1, 2, 30, 40], "label": " car\\n"}]}]', (CAR,)),
        ('{"bbox_2d": [1, 2, 30, 40], "label": "car"}\n{"bbox_2d": [1, 2, 30, 40], "label": "car"}', (CAR, CAR)),
        ('I see [one] car: [{"bbox_2d": [1, 2, 30, 40], "label": "car"}]. Done {really}.', (CAR,)),
        ('[{"point_2d": [1.5, 2e1], "label": "car"}]', (Detected("car", None, (1.5, 20.0)),)),
        ('[{"point": [1, 2], "bbox": [1, 2, 30, 40], "label": "car"}]', (Detected("car", CAR.box, (1, 2)),)),
        ('[{"bbox_2d": "?", "box": [1, 2, 30, 40], "label": null, "name": "car"}]', (CAR,)),
        ('[{"bbox_2d": [30, 40, 1, 2], "label": "car"}]', (Detected("car", (30, 40, 1, 2)),)),
        ('[{"bbox_2d": [1, 2, 30, 40]}]', (Detected("", CAR.box),)),
        ('[{"bbox_2d": [1, 2, 30, 40], "label": 7}]', (Detected("7", CAR.box),)),
        ('[{"bbox_2d": [1, 2, 30, 40], "label": "a\\ud800b"}]', (Detected("a?b", CAR.box),)),
        ("[]", ()),
        ("```json\n[]\n```", ()),
        ('{"detections": []}', ()),
    ],
)
def test_whole_answers(text: str, detections: tuple[Detected, ...]) -> None:
    assert parse(text) == Parsed(detections, complete=True)


@pytest.mark.parametrize(
    "text",
    [
        '[{"bbox_2d": [1, 2, 30, 40], "label": "car"}, {"bbox_2d": [10, 20, 3',
        '[{"bbox_2d": [1, 2, 30, 40], "label": "car"}, {"bbox_2d": [10, 20, 300, 40], "label": "b',
        '[{"bbox_2d": [1, 2, 30, 40], "label": "car"}, {"bbox_2d": [10, 20, 300, 40], "label": "bus"',
        '[{"bbox_2d": [1, 2, 30, 40], "label": "car"},',
        '[{"bbox_2d": [1, 2, 30, 40], "label": "car"}',
        '{"detections": [{"bbox_2d": [1, 2, 30, 40], "label": "car"}, {',
        '[{"bbox_2d": [1, 2, 30,, 4], "label": "bus"}, {"bbox_2d": [1, 2, 30, 40], "label": "car"}]',
        "[" * 50 + '{"bbox_2d": [1, 2, 30, 40], "label": "car"}',
    ],
)
def test_a_broken_answer_keeps_its_whole_objects(text: str) -> None:
    parsed = parse(text)
    assert (parsed.detections, parsed.complete, len(parsed.problems)) == ((CAR,), False, 1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no JSON"),
        ("There are no cars.", "no JSON"),
        ("{'bbox_2d': (1, 2)}", "no JSON"),
        ("[1, 2, 30, 40]", "no object"),
        ("{}", "neither"),
        ('{"car": [1, 2, 30, 40]}', "neither"),
        ('{"bbox_2d": [1, 2, 30]}', "no list of 4 numbers"),
        ('{"bbox_2d": [1, 2, 30, "40"]}', "no list of 4 numbers"),
        ('{"bbox_2d": [1, 2, 30, true]}', "no list of 4 numbers"),
        ('{"bbox_2d": [1, 2, NaN, 4]}', "no list of 4 numbers"),
        ('{"bbox_2d": [1, 2, Infinity, 4]}', "no list of 4 numbers"),
        ('{"bbox_2d": [1, 2, 1e999, 4]}', "no list of 4 numbers"),
        ('{"bbox_2d": [1, 2, 1' + "0" * 400 + ", 4]}", "no list of 4 numbers"),
        ('{"bbox_2d": [1, 2, 1' + "0" * 5000 + ", 4]}", "breaks off"),
        ('{"point_2d": [[1, 2]]}', "no list of 2 numbers"),
        ('{"bbox_2d": [[1, 2], [3, 4]]}', "no list of 4 numbers"),
        ("[" * 100_000, "breaks off"),
        ('{"a":' * 30_000, "breaks off"),
        ('{"a":[' * 900 + "1," * 90_000, "breaks off"),
    ],
)
def test_answers_without_an_object(text: str, problem: str) -> None:
    began = time.monotonic()
    parsed = parse(text)
    assert not parsed.detections
    assert problem in " ".join(parsed.problems)
    assert time.monotonic() - began < 10


def test_every_truncation_keeps_exactly_what_stood_whole() -> None:
    """At each cut, the detections are those whose closing bracket has been reached; none is changed."""
    whole = parse(FENCED).detections
    ends = [at for at, char in enumerate(FENCED) if char == "}"]
    for cut in range(len(FENCED)):
        parsed = parse(FENCED[:cut])
        assert parsed.detections == whole[: sum(end < cut for end in ends)], FENCED[:cut]
        assert parsed.complete == (FENCED.index("\n]") + 2 <= cut)


numbers = st.one_of(
    st.integers(-50, 5000),
    st.integers(-(10**320), 10**320),
    st.floats(allow_nan=True, allow_infinity=True),
    st.booleans(),
    st.none(),
    st.text(max_size=3),
)
objects = st.fixed_dictionaries(
    {},
    optional={
        "bbox_2d": st.one_of(
            st.lists(numbers, min_size=3, max_size=5), st.lists(st.integers(0, 999), min_size=4, max_size=4)
        ),
        "bbox": st.lists(st.integers(0, 999), min_size=4, max_size=4),
        "point_2d": st.lists(numbers, min_size=1, max_size=3),
        "label": st.one_of(st.text(max_size=12), numbers),
        "name": st.text(max_size=5),
    },
)
values = st.recursive(
    st.one_of(objects, numbers),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.fixed_dictionaries({"detections": inner})),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(value=values, fence=st.booleans(), seed=st.integers(0, 2**32))
def test_fuzzed_answers(value: object, fence: bool, seed: int) -> None:
    """No crash, and each box is one that stood whole in the text: its own numbers, closed by its own brackets."""
    chance = random.Random(seed)
    text = json.dumps(value, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 1]))
    text = f"Sure!\n```json\n{text}\n```" if fence else text
    for _ in range(chance.choice([0, 0, 1, 2, 5])):  # noise, then perhaps a cut
        at = chance.randrange(len(text) + 1)
        text = text[:at] + chance.choice(['"', "{", "}", "[", "]", ",", "0", " ", "\\", "```", "é", "\x00"]) + text[at:]
    if chance.random() < 0.7:
        text = text[: chance.randrange(len(text) + 1)]
    stood = _standing(text)
    for one in parse(text).detections:
        assert one.box or one.point
        for place in (one.box, one.point):
            assert place is None or tuple(place) in stood, (text, one)
        one.label.encode()


def _standing(text: str) -> set[tuple[float, ...]]:
    """Every bracketed list of plain numbers in a text, found without the code under test."""
    found: set[tuple[float, ...]] = set()
    for opening in (at for at, char in enumerate(text) if char == "["):
        inside, closed, _ = text[opening + 1 :].partition("]")
        try:
            found |= {tuple(float(number) for number in inside.split(","))} if closed else set()
        except ValueError:
            continue
    return found
