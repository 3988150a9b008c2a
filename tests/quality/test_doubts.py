"""The queue of doubtful labels: most doubtful first, dismissed and brought back, also over another check."""

from __future__ import annotations

from dataclasses import replace

from tator_ml.quality.doubts import Doubt

from .conftest import Record

ONE = Doubt(1, 11, "a", "Ball", 0.05, "Box", 0.9, "head-1", "f" * 64, (10, 10, 30, 30), (100, 100))
OTHER = replace(ONE, annotation=12, task=2, region="b", given=0.01)


def test_dismissed_ones_stay_so_for_the_same_doubt_only(record: Record) -> None:
    doubts = record.follower.doubts
    doubts.replace_all(7, [ONE, OTHER])
    first, second = doubts.open([7], 10)
    assert (first.region, second.region) == ("b", "a") and doubts.open([8], 10) == []
    doubts.dismiss(first, "Ada")
    assert [one.region for one in doubts.open([7], 10)] == ["a"] and doubts.count([7]) == (1, 1)

    doubts.replace_all(7, [ONE, OTHER])  # checked again: the same doubt
    assert [one.region for one in doubts.open([7], 10)] == ["a"]
    doubts.replace(7, 12, [replace(OTHER, said="Cup")])  # another one about the same region
    assert [one.region for one in doubts.open([7], 10)] == ["b", "a"]

    doubts.replace(7, 12, [OTHER])
    (gone,) = doubts.dismissed([7], 10)
    doubts.bring_back(gone)
    assert doubts.count([7]) == (2, 0)
    doubts.replace(7, 12, [])
    assert [one.region for one in doubts.open([7], 10)] == ["a"] and doubts.get(first.number) is None


def test_an_annotation_that_goes_takes_its_doubts_along(record: Record) -> None:
    record.follower.doubts.replace_all(7, [ONE])
    record.store.delete(7, [11])
    assert record.follower.doubts.count([7]) == (0, 0)
