"""Work packages as numbers: cut by shares, never overlapping, in few ranges."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tator_sdk.errors import TatorError
from tator_sdk.packages import Package, PackageRecords, Share, divide, ranges
from tator_sdk.settings import Settings


@given(
    some.lists(some.integers(1, 10_000), unique=True, max_size=60).map(sorted),
    some.lists(some.integers(0, 9), min_size=1, max_size=6).filter(any),
)
def test_parts_are_disjoint_complete_and_as_large_as_the_weights_say(tasks: list[int], weights: list[int]) -> None:
    parts = divide(tasks, [Share(f"p{row}", weight) for row, weight in enumerate(weights)])
    assert [task for _, part in parts for task in part] == tasks
    for (_, part), weight in zip(parts, weights, strict=True):
        assert abs(len(part) - len(tasks) * weight / sum(weights)) < 1


def test_shares_must_make_sense() -> None:
    with pytest.raises(TatorError, match="twice"):
        divide([1, 2], [Share("ann"), Share("ann")])
    for weights in ([0, 0], [2, -1]):
        with pytest.raises(TatorError, match="above 0"):
            divide([1, 2], [Share(f"p{row}", weight) for row, weight in enumerate(weights)])


@given(some.sets(some.integers(1, 60)), some.sets(some.integers(1, 60)))
def test_ranges_hold_all_of_ones_own_and_none_of_the_others(own: set[int], others: set[int]) -> None:
    others -= own
    found = ranges(sorted(own), others)
    held = {number for first, last in found for number in range(first, last + 1)}
    assert own <= held and not held & others
    for (_, last), (first, _) in pairwise(found):
        assert others & set(range(last, first)), "two ranges only where somebody else's lies between"


def test_records_are_kept_by_project(tmp_path: Path) -> None:
    records = PackageRecords(Settings(home=tmp_path))
    made = [Package.new(project, "b", "ann", [3, 4]) for project in (1, 1, 11)]
    for one in made:
        records.keep(one)
    assert sorted(one.id for one in records.of(1)) == sorted(one.id for one in made[:2])
    assert records.of(11) == [made[2]]
    records.forget(made[0])
    assert records.of(1) == [made[1]]
    with pytest.raises(TatorError):
        records.forget(Package("../../etc", "b", 1, "ann", (1,), None, 0.0))
