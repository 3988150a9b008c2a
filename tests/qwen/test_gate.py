"""Figures of answers, and whether a model may take over by them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tator_sdk.geometry import Xyxy
from training.gate import Decision
from training.qwen.gate import decide
from training.qwen.scores import Boxes, Scores, constant_answer, score, tally

CAR: tuple[str, Xyxy] = ("car", (10.0, 10.0, 50.0, 50.0))
NEAR: tuple[str, Xyxy] = ("car", (12.0, 10.0, 52.0, 50.0))  # IoU 0.905
FAR: tuple[str, Xyxy] = ("car", (30.0, 30.0, 70.0, 70.0))  # IoU 0.143
BUS: tuple[str, Xyxy] = ("bus", (60.0, 60.0, 90.0, 90.0))


def scores(truth: Sequence[Boxes], found: Sequence[Boxes]) -> Scores:
    return score(tally(truth, found, ("car", "bus")))


def test_right_answers_reach_one() -> None:
    one = scores([[CAR, BUS], []], [[NEAR, BUS], []])
    assert (one.map50, one.f1, one.label_f1) == (1, 1, 1) and one.mean_iou == pytest.approx(
        (1600 - 80) / 1680 / 2 + 0.5
    )
    assert one.per_class == {"car": 1, "bus": 1} and (one.pictures, one.objects, one.answers) == (2, 2, 2)


def test_misses_and_inventions_cost() -> None:
    one = scores([[CAR, BUS]], [[NEAR, FAR, ("tram", (0.0, 0.0, 9.0, 9.0))]])
    assert one.per_class == {"car": 0.5, "bus": 0, "tram": 0} and one.map50 == 0.25
    assert (one.precision, one.recall, one.f1) == (1 / 3, 1 / 2, 0.4)
    assert one.label_f1 == 0.5


def test_an_object_is_matched_once_and_by_the_best_answer() -> None:
    one = scores([[CAR]], [[FAR, NEAR, NEAR]])
    assert one.recall == 1 and one.precision == 1 / 3 and one.mean_iou > 0.9
    assert scores([[CAR]], [[FAR]]).f1 == 0 and scores([[CAR]], [[FAR]]).mean_iou == pytest.approx(1 / 7)


def test_a_wrong_label_in_the_right_place_is_wrong() -> None:
    assert scores([[CAR]], [[("bus", CAR[1])]]).f1 == 0


def test_nothing_where_nothing_is_counts_as_right() -> None:
    one = scores([[], []], [[], []])
    assert one.f1 == 1 and one.label_f1 == 1 and one.objects == 0


def test_a_constant_answer_is_the_usual_box_of_what_is_usually_there() -> None:
    seen = [[CAR], [NEAR, BUS], [CAR]]
    (answer,) = constant_answer(seen, [(100, 100)] * 3, [(200, 100)])
    assert answer == [("car", (20.0, 10.0, 100.0, 50.0))]
    (rare,) = constant_answer([[BUS], [], []], [(100, 100)] * 3, [(100, 100)])
    assert [label for label, _ in rare] == ["bus"]  # the commonest, where none is usual


def gate(mine: Sequence[Boxes], theirs: Sequence[Boxes], trivial: Sequence[Boxes] | None = None) -> Decision:
    truth = [[CAR]] * len(mine)
    one, other, third = (tally(truth, found, ("car", "bus")) for found in (mine, theirs, trivial or [[]] * len(mine)))
    return decide(one, other, third)


def test_a_model_that_is_clearly_better_takes_over() -> None:
    decision = gate([[NEAR]] * 12, [[FAR]] * 12)
    assert decision.activate and "beats the active model's 0.000" in decision.reason
    assert decision.pictures == 12 and decision.luck is not None and decision.luck < 0.05
    assert decision.as_json()["candidate"]["map50"] == 1


def test_one_that_is_equal_or_worse_does_not() -> None:
    assert not gate([[NEAR]] * 12, [[NEAR]] * 12).activate
    worse = gate([[FAR]] * 6 + [[NEAR]] * 6, [[NEAR]] * 12)
    assert not worse.activate and "does not beat the active model's 1.000" in worse.reason


def test_a_lead_that_may_be_luck_does_not() -> None:
    decision = gate([[NEAR]] * 7 + [[]] * 5, [[NEAR]] * 6 + [[]] * 6)
    assert not decision.activate and "by luck" in decision.reason
    assert not gate([[NEAR]] * 3, [[]] * 3).activate  # three pictures prove nothing


def test_one_that_never_looks_does_not() -> None:
    decision = gate([[NEAR]] * 12, [[]] * 12, [[CAR]] * 12)
    assert not decision.activate and "same for every picture" in decision.reason


def test_nothing_held_out_is_said() -> None:
    decision = gate([], [])
    assert not decision.activate and "cannot be compared" in decision.reason and decision.candidate is None


def test_luck_is_what_a_permutation_test_says() -> None:
    """Of five pictures on which one model alone is right, an exchange of all or none gives a lead as large: 1 of 32."""
    luck = gate([[NEAR]] * 5, [[]] * 5).luck
    assert luck is not None and np.isclose(luck, 1 / 32, atol=0.015)
