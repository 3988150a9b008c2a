"""What became of single suggestions, where the hand-made project has no example."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tator_ml.quality.outcomes import Submitted, judge
from tator_ml.suggestions import Suggested

from .hand_made import box


def asked(name: str, place: tuple[float, ...], at: float = 100, label: str = "Ball", **more: Any) -> Suggested:
    item = box(name, label, place)  # type: ignore[arg-type]
    return Suggested(name, at, "v1", item, (label,) if label else (), **{"assist": "points", **more})


def made(number: int, at: float, *result: dict[str, Any]) -> Submitted:
    return Submitted(number, at, at, result, annotator=number)


def whats(found: list[Any]) -> list[tuple[str, str, int | None]]:
    return [(one.suggested.region, one.what, one.annotation) for one in found]


def test_of_two_annotators_each_decides_about_their_own_and_the_first_about_what_nobody_used() -> None:
    suggested = [asked("a", (0, 0, 10, 10)), asked("b", (20, 0, 10, 10)), asked("c", (40, 0, 10, 10), at=500)]
    annotations = [made(2, 300, box("b", "Ball", (20, 0, 10, 10))), made(1, 200)]
    assert whats(judge(suggested, annotations)) == [("a", "unused", 1), ("b", "accepted", 2)]  # c is open


def test_before_and_after_by_the_clocks_of_two_hosts() -> None:
    one = asked("a", (0, 0, 10, 10), at=130)
    assert whats(judge([one], [made(1, 100)])) == [("a", "unused", 1)]
    assert judge([replace(one, at=161)], [made(1, 100)]) == []


def test_a_tightened_box_that_was_turned_down_and_one_whose_class_alone_was_kept() -> None:
    stood = box("a", "Ball", (0, 0, 12, 12))
    tweak = asked("a", (0, 0, 10, 10), assist="tweak", before=stood)
    assert whats(judge([tweak], [made(1, 200, stood)])) == [("a", "unused", 1)]
    classed = asked("a", (0, 0, 10, 10), assist="boxes", label="Box", before=stood)
    (kept,) = judge([classed], [made(1, 200, box("a", "Box", (0, 0, 12, 12)))])
    assert kept.what == "edited" and kept.iou == pytest.approx(100 / 144)
    same_place = asked("a", (0, 0, 12, 12), assist="boxes", label="Box", before=stood)
    assert whats(judge([same_place], [made(1, 200, stood)])) == [("a", "relabelled", 1)]


def test_other_words_do_not_replace_and_a_used_one_is_not_replaced() -> None:
    first = asked("a", (0, 0, 10, 10), assist="text", prompts=frozenset({"t"}))
    elsewhere = asked("b", (50, 50, 10, 10), at=110, assist="text", prompts=frozenset({"t"}))
    annotation = made(1, 200, box("b", "Ball", (50, 50, 10, 10)))
    assert whats(judge([first, elsewhere], [annotation])) == [("a", "unused", 1), ("b", "accepted", 1)]
    again = asked("b", (0, 0, 10, 10), at=110, assist="text", prompts=frozenset({"t"}))
    both = made(1, 200, box("a", "Ball", (0, 0, 10, 10)))
    assert whats(judge([first, again], [both])) == [("a", "accepted", 1), ("b", "unused", 1)]


def test_a_stored_object_that_somebody_asked_about_is_replaced_and_a_stranger_is_not_taken_for_it() -> None:
    stored = asked("a", (0, 0, 10, 10), assist="prelabel", annotation=1)
    tweak = asked("a", (0, 0, 9, 9), at=150, assist="tweak")
    annotation = made(1, 200, box("a", "Ball", (0, 0, 9, 9)))
    assert whats(judge([stored, tweak], [annotation])) == [("a", "accepted", 1), ("a", "replaced", None)]
    by_hand = made(1, 200, box("z", "Ball", (0, 0, 10, 10), origin="manual"))
    assert whats(judge([stored], [by_hand])) == [("a", "unused", 1)]


def test_what_cannot_be_read_is_edited_without_a_measure() -> None:
    broken = box("a", "Ball", (0, 0, 10, 10))
    del broken["value"]["x"]
    (found,) = judge([asked("a", (0, 0, 10, 10))], [made(1, 200, broken)])
    assert (found.what, found.iou) == ("edited", None)


def test_a_rectangle_with_its_label_beside_it_is_one_object() -> None:
    plain = {**box("a", "Ball", (0, 0, 10, 10)), "type": "rectangle"}
    del plain["value"]["rectanglelabels"]
    beside = {**plain, "type": "labels", "value": {**plain["value"], "labels": ["Ball"]}}
    (found,) = judge([asked("a", (0, 0, 10, 10))], [made(1, 200, plain, beside)])
    assert found.what == "accepted" and found.final is not None and found.final.labels == ("Ball",)
