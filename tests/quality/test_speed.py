"""Intervals and verdicts; the draw of the comparison."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tator_ml.projects import Projects
from tator_ml.quality.comparison import Comparison
from tator_ml.quality.intervals import bootstrapped_medians, percentiles, trimmed_mean, wilson
from tator_ml.quality.outcomes import Submitted
from tator_ml.quality.speed import on_purpose
from tator_sdk.errors import TatorError

from .conftest import Record
from .hand_made import box


@given(st.integers(0, 200), st.integers(1, 200))
def test_wilson_holds_the_share_and_stays_inside(count: int, total: int) -> None:
    count = min(count, total)
    found = wilson(count, total)
    assert found is not None and 0 <= found.low <= count / total + 1e-12 and count / total - 1e-12 <= found.high <= 1


def test_wilson_of_known_shares() -> None:
    found = wilson(0, 10)
    assert found is not None and (found.low, found.high) == (0, pytest.approx(0.2775, abs=1e-4))  # z²/(n + z²)
    assert wilson(0, 0) is None


@pytest.mark.parametrize("count", [1, 2, 7, 20])
def test_medians_are_distributed_as_those_of_drawn_samples(count: int) -> None:
    generator = np.random.default_rng(3)
    values = generator.exponential(size=count)
    quick = bootstrapped_medians(values, 20_000, generator)
    drawn = np.median(values[generator.integers(0, count, (20_000, count))], axis=1)
    steps = np.unique(np.concatenate([quick, drawn]))  # the greatest distance of the two distributions
    assert max(abs((quick <= step).mean() - (drawn <= step).mean()) for step in steps) < 0.02
    interval = percentiles(quick)
    assert interval.low <= np.median(values) <= interval.high


def test_the_trimmed_mean_leaves_a_tenth_out_on_either_side() -> None:
    assert trimmed_mean([1000, *[10.0] * 8, 0]) == 10


def test_the_draw_is_right_the_same_for_ever_and_grows() -> None:
    drawn = {share: {task for task in range(1, 10_001) if Comparison(share, 5, 0).draws(task)} for share in (0.1, 0.3)}
    for share, tasks in drawn.items():  # chi-square with one degree of freedom, 99.9 %
        expected = share * 10_000
        square = (len(tasks) - expected) ** 2 / expected + (len(tasks) - expected) ** 2 / (10_000 - expected)
        assert square < 10.83, (share, len(tasks))
    assert drawn[0.1] < drawn[0.3]
    assert [task for task in range(1, 41) if Comparison(0.1, 5, 0).draws(task)] == DRAWN
    other = {task for task in range(1, 10_001) if Comparison(0.3, 6, 0).draws(task)}
    assert len(other & drawn[0.3]) == pytest.approx(900, abs=100)  # another seed is independent
    assert not Comparison(0.5, 5, 0).draws(None)


DRAWN = [2, 14, 22, 32]


@pytest.mark.parametrize("share", [0.0, -0.1, 0.51])
def test_a_share_beyond_half_is_refused(record: Record, tmp_path: object, share: float) -> None:
    with pytest.raises(TatorError, match="At most 50%"):
        Projects(tmp_path).choose(3, comparison=Comparison(share, 1, 0.0))  # type: ignore[arg-type]


def fill(record: Record, comparison: Comparison, faster: float, count: int = 200) -> None:
    """Tasks that take 20 s an object by hand, spread evenly from 10 to 30, and less with assistance."""
    record.store.begin_comparison(1, comparison)
    spread = np.random.default_rng(1).permutation(np.linspace(10, 30, count))
    with record.store.writing():
        for task, seconds in enumerate(spread, start=1):
            each = seconds * (1 if comparison.draws(task) else 1 - faster)
            things = [box("n", "Ball", (0, 0, 9, 9)), box("o", "Ball", (50, 0, 9, 9))]
            submitted = Submitted(task, 1000.0 + task, 1000.0 + task, things, 1, 2 * each)
            record.store.put(1, task, submitted, {})
            record.store.judge(1, task, [])


def test_a_true_saving_is_found_and_none_is_not_invented(record: Record) -> None:
    fill(record, Comparison(0.3, 5, 100.0), 0.4)
    found = on_purpose(record.store, 1, 100.0)
    assert found.manual.annotations == sum(Comparison(0.3, 5, 0).draws(task) for task in range(1, 201))
    assert found.assisted.annotations + found.manual.annotations == 200
    assert found.interval is not None and found.interval.low < 0.4 < found.interval.high
    assert found.verdict.startswith("Assistance saves")


def test_no_saving_is_said_to_be_none(record: Record) -> None:
    fill(record, Comparison(0.3, 5, 100.0), 0.0)
    assert on_purpose(record.store, 1, 100.0).verdict.startswith("No difference can be told")
    record.store.end_comparison(1)
    ((_, ended),) = record.store.comparisons(1)
    assert ended is not None and math.isfinite(ended)


def test_what_began_before_or_was_assisted_before_is_no_part(record: Record) -> None:
    comparison = Comparison(0.3, 5, 1000.0)
    record.store.begin_comparison(1, comparison)
    things = [box("n", "Ball", (0, 0, 9, 9))]
    record.store.put(1, 1, Submitted(1, 900.0, 1100.0, things, 1, 9.0), {})
    record.store.judge(1, 1, [])
    record.store.put(1, 2, Submitted(2, 1100.0, 1100.0, things, 1, 9.0), {})
    record.store.put_prediction(1, 3, 50, 900.0, "v1", things)
    record.store.put(1, 3, Submitted(3, 1100.0, 1100.0, things, 1, 9.0, parent=50), {})
    record.store.put(1, 4, Submitted(4, 1100.0, 1100.0, things, 1, 9.0), {})
    from .test_outcomes import asked

    record.store.judge(1, 2, [asked("n", (0, 0, 9, 9), at=950.0)])
    record.store.judge(1, 3, [])
    record.store.judge(1, 4, [])
    part = record.store.rows("SELECT annotation, drawn FROM annotations WHERE comparison IS NOT NULL")
    assert part == [(4, int(comparison.draws(4)))]
