"""Questions of one task: the last one is answered, whatever the threads do."""

from __future__ import annotations

import math
from itertools import permutations

import pytest

from tator_ml.engine.lanes import About, Lane, Lanes
from tator_ml.engine.questions import Question, Questions


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_last_question_stays_in_whatever_order_they_enter(order: tuple[int, ...]) -> None:
    lanes = Lanes()
    questions = Questions(lanes, 10.0)
    asked = [Question("1/7", lanes.enter(Lane.WORDS, About()), 0.0, math.inf) for _ in range(3)]
    other = Question("1/8", lanes.enter(Lane.WORDS, About()), 0.0, math.inf)
    for one in (other, *(asked[place] for place in order)):
        questions._enter(one)
    assert [one.superseded for one in (*asked, other)] == [True, True, False, False]
    assert [one.stop.is_set() for one in (*asked, other)] == [True, True, False, False]
    lanes.close()
