"""Whether a tuned SAM 3 may take over: it must look, and be better by more than luck."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tator_sdk.geometry import Xyxy
from tests.sam3_training.material import sample
from training.gate import Decision, share_of_luck
from training.sam3.compare import constant_tally
from training.sam3.gate import Exchanges, decide
from training.sam3.scores import Found, Tally, tally

CAR: Xyxy = (10.0, 10.0, 50.0, 50.0)
NEAR: Xyxy = (12.0, 10.0, 52.0, 50.0)  # IoU 0.905
FAR: Xyxy = (30.0, 30.0, 70.0, 70.0)  # IoU 0.143
CLASSES = ("car", "bus")


def tallied(found: Sequence[Found]) -> Tally:
    return tally([[("car", CAR)]] * len(found), found, CLASSES)


def gate(mine: Sequence[Found], theirs: Sequence[Found], constant: Sequence[Found] | None = None) -> Decision:
    return decide(tallied(mine), tallied(theirs), tallied(constant or [[]] * len(mine)))


def near(score: float = 0.9) -> Found:
    return [("car", score, NEAR)]


def test_a_model_that_is_clearly_better_takes_over() -> None:
    decision = gate([near()] * 12, [[("car", 0.9, FAR)]] * 12)
    assert decision.activate and "its AP50 of 1.000 on 12 held-out pictures beats the active model's 0.000" in str(
        decision.reason
    )
    assert decision.luck is not None and decision.luck < 0.01 and decision.as_json()["candidate"]["ap50"] == 1


def test_one_that_is_equal_or_worse_does_not() -> None:
    assert not gate([near()] * 12, [near()] * 12).activate
    worse = gate([near()] * 6 + [[]] * 6, [near()] * 12)
    assert not worse.activate and "does not beat the active model's 1.000" in worse.reason


def test_a_lead_that_may_be_luck_does_not() -> None:
    decision = gate([near()] * 7 + [[]] * 5, [near()] * 6 + [[]] * 6)
    assert not decision.activate and "by luck" in decision.reason
    assert not gate([near()] * 3, [[]] * 3).activate  # three pictures prove nothing


def test_one_that_never_looks_does_not() -> None:
    decision = gate([near()] * 12, [[]] * 12, [[("car", 1.0, CAR)]] * 12)
    assert not decision.activate and "same for every picture" in decision.reason


def test_nothing_held_out_is_said() -> None:
    decision = decide(*[tally([[]], [[]], CLASSES)] * 3)
    assert not decision.activate and "cannot be compared" in decision.reason and decision.candidate is None


def test_luck_is_what_a_permutation_test_says() -> None:
    """Of five pictures on which one model alone is right, an exchange of all or none gives a lead as large: 1 of 32."""
    luck = gate([near()] * 5, [[]] * 5).luck
    assert luck is not None and np.isclose(luck, 1 / 32, atol=0.015)


def test_an_exchange_is_what_other_answers_would_have_been() -> None:
    """Exchanged answers, matched and summed up anew by pycocotools, have the lead that the ranking gives."""
    rng = np.random.default_rng(5)

    def answers() -> list[Found]:
        return [
            [
                (CLASSES[rng.integers(2)], round(float(rng.random()), 1), [NEAR, FAR, CAR][rng.integers(3)])
                for _ in range(rng.integers(5))
            ]
            for _ in range(9)
        ]

    truth = [[("car", CAR), ("bus", FAR)] if row % 3 else [("bus", CAR)] for row in range(9)]
    mine, theirs = answers(), answers()
    exchanges = Exchanges(tally(truth, mine, CLASSES), tally(truth, theirs, CLASSES))
    for _ in range(20):
        swapped = rng.random(9) < 0.5
        one = [theirs[row] if swapped[row] else mine[row] for row in range(9)]
        other = [mine[row] if swapped[row] else theirs[row] for row in range(9)]
        expected = tally(truth, one, CLASSES).scores.ap50 - tally(truth, other, CLASSES).scores.ap50
        assert exchanges.lead(swapped) == pytest.approx(expected, abs=1e-9)


def test_the_share_of_luck_counts_the_observed_lead() -> None:
    assert share_of_luck(lambda swapped: float(swapped.sum() == 0), 60, 1, 99) == 1 / 100
    assert share_of_luck(lambda swapped: 0.0, 3, 1, 99) == 1


def test_a_constant_answer_is_the_median_box_on_every_picture() -> None:
    learned = [sample(str(n), [("car", (10.0 + n, 10.0, 30.0 + n, 30.0))], (100, 100)) for n in (0, 2, 4)]
    asked = [sample("a", [("car", (24.0, 20.0, 64.0, 60.0))], (200, 200)), sample("b", [], (200, 200))]
    found = constant_tally(learned, asked, CLASSES)
    assert found.scores.ap == pytest.approx(1.0)  # twice as large, exactly there
    assert found.scores.answers == 2  # on the empty picture too, and no bus was ever seen
