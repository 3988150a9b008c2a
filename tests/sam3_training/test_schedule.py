"""Rates rise, fall and come to nothing; hard batches come again, the same ones for every run."""

from __future__ import annotations

import math

import pytest

from tests.sam3_training.material import request
from training.sam3.replay import Replay
from training.sam3.schedule import factor

STEPS = 200
SOME = {"warm_up": 20, "cool_down": 10, "time_scale": 30}


@pytest.mark.parametrize("schedule", ["inverse_sqrt", "cosine", "constant"])
def test_rates_rise_fall_and_end(schedule: str) -> None:
    asked = request(**SOME, schedule=schedule)
    rates = [factor(step, STEPS, asked) for step in range(1, STEPS + 1)]
    assert rates[:20] == pytest.approx([step / 20 for step in range(1, 21)])
    middle = {
        "inverse_sqrt": 1 / math.sqrt((100 - 20 + 30) / 30),
        "cosine": 0.5 * (1 + math.cos(math.pi * 80 / 181)),
        "constant": 1.0,
    }[schedule]
    assert rates[99] == pytest.approx(middle)
    assert rates[19:] == sorted(rates[19:], reverse=True) and 0 < rates[-1] <= 0.1
    whole = factor(200, STEPS, request(**{**SOME, "cool_down": 0}, schedule=schedule))
    assert rates[-1] == pytest.approx(whole * 0.1) and rates[-10] == pytest.approx(
        factor(191, STEPS, request(**{**SOME, "cool_down": 0}, schedule=schedule))
    )


def test_a_training_shorter_than_its_warm_up_still_learns() -> None:
    asked = request(warm_up=20, cool_down=20)
    assert [factor(step, 2, asked) for step in (1, 2)] == pytest.approx([1 / 20 * 2 / 20, 2 / 20 * 1 / 20])


def test_the_hardest_batches_come_again_after_the_burn_in() -> None:
    replay = Replay(0.5, burn_in=20, kept=3, seed=1)
    order = []
    for number in range(400):
        chosen = replay.batch(number, number)
        order.append(chosen)
        replay.saw(chosen, float(chosen % 10))
    again = [(number, chosen) for number, chosen in enumerate(order) if chosen != number]
    assert all(number >= 20 for number, _ in again) and 0.4 < len(again) / 380 < 0.6
    assert all(chosen % 10 >= 7 for _, chosen in again)  # of the first twenty, the hardest are 9, 19 and an 8
    assert len(replay.state()) == 3


def test_replay_goes_on_from_a_checkpoint_as_if_nothing_had_been() -> None:
    def run(replay: Replay, numbers: range) -> list[int]:
        order = []
        for number in numbers:
            order.append(replay.batch(number, number))
            replay.saw(order[-1], float((order[-1] * 7919) % 101))
        return order

    whole = run(Replay(0.3, 10, 4, seed=2), range(200))
    first = Replay(0.3, 10, 4, seed=2)
    begun = run(first, range(90))
    assert begun + run(Replay(0.3, 10, 4, seed=2, worst=first.state()), range(90, 200)) == whole


def test_without_a_share_nothing_is_repeated_or_kept() -> None:
    replay = Replay(0.0, 0, 3, seed=1)
    replay.saw(0, 5.0)
    assert replay.batch(1, 1) == 1 and replay.state() == []
