"""Every figure of the hand-made project (hand_made.py) is what a person computed."""

from __future__ import annotations

import random

import pytest

from tator_ml.quality.figures import BY, Tally, Wanted, changed_labels, figures
from tator_ml.quality.follow import read_project
from tator_ml.quality.speed import as_it_happened

from .conftest import Record, studio_api, task_of
from .hand_made import ANNOTATIONS, CONFIG, EXPECTED, NAMES, PROJECT, TOTAL


def counts(tally: Tally) -> tuple[int, ...]:
    return tally.accepted, tally.edited, tally.relabelled, tally.unused, tally.replaced


def submit(record: Record, order: list[int]) -> None:
    for place in order:
        given = ANNOTATIONS[place]
        record.follower.annotated(PROJECT, given, task_of(given["task"]), CONFIG)
    record.follower.settle()


def check(record: Record) -> None:
    record.store.set_people(NAMES)
    found = figures(record.store, Wanted([PROJECT]))
    assert counts(found.total) == TOTAL
    assert {by: {name: counts(one) for name, one in found.groups[by].items()} for by in BY} == EXPECTED
    assert found.total.edited_iou == pytest.approx(1.9 / 3)
    assert found.total.used_iou == pytest.approx(5.9 / 7)
    assert found.groups["label"]["Box"].edited_iou == pytest.approx(1.9 / 3)
    assert found.groups["version"]["v1"].edited_iou == pytest.approx(0.5)
    assert found.groups["annotator"]["Ben"].edited_iou == pytest.approx(0.8)
    assert found.groups["week"]["2026-W48"].edited_iou == pytest.approx(0.7)
    assert changed_labels(record.store, Wanted([PROJECT])) == [("Ball", "Box", 1)]
    pace = as_it_happened(record.store, Wanted([PROJECT]))
    assert (pace.assisted.annotations, pace.assisted.objects, pace.assisted.pauses) == (4, 9, 0)
    assert (pace.assisted.median, pace.assisted.trimmed) == (pytest.approx(10), pytest.approx(11.5))
    assert (pace.manual.annotations, pace.manual.objects, pace.manual.pauses) == (1, 2, 1)
    assert pace.manual.median == pytest.approx(25) and pace.saved == pytest.approx(0.6)
    assert pace.verdict.startswith("Too few to tell: 4 with assistance and 1 without")


@pytest.mark.parametrize("seed", range(4))
def test_as_webhooks_tell_it_in_any_order_and_again(record: Record, seed: int) -> None:
    order = [*range(len(ANNOTATIONS)), *range(0, len(ANNOTATIONS), 2)]
    random.Random(seed).shuffle(order)
    submit(record, order)
    check(record)


def test_as_the_project_is_read(record: Record) -> None:
    with studio_api() as api:
        done = read_project(api, record.store, record.suggestions, PROJECT)
        check(record)
        again = read_project(api, record.store, record.suggestions, PROJECT)
    check(record)
    assert (done.tasks, done.annotations, done.gone) == (7, 6, 0) and again == done
    assert record.store.read_at(PROJECT) is not None


def test_a_part_by_week_version_and_class(record: Record) -> None:
    submit(record, list(range(len(ANNOTATIONS))))
    assert counts(figures(record.store, Wanted([PROJECT], since="2026-W48")).total) == (2, 2, 0, 0, 2)
    assert counts(figures(record.store, Wanted([PROJECT], until="2026-W47")).total) == (1, 1, 1, 2, 0)
    assert counts(figures(record.store, Wanted([PROJECT], version="v1", label="Ball")).total) == (1, 0, 1, 2, 0)
    assert figures(record.store, Wanted([PROJECT + 1])).total.decided == 0


def test_what_is_deleted_is_open_again(record: Record) -> None:
    submit(record, list(range(len(ANNOTATIONS))))
    record.follower.deleted(PROJECT, [12])
    record.follower.settle()
    assert counts(figures(record.store, Wanted([PROJECT])).total) == (3, 3, 0, 1, 2)
    assert record.store.rows("SELECT COUNT(*) FROM tallies WHERE count <= 0") == [(0,)]
    with studio_api(tuple(one for one in ANNOTATIONS if one["id"] != 11)) as api:
        assert read_project(api, record.store, record.suggestions, PROJECT).gone == 1
    assert counts(figures(record.store, Wanted([PROJECT])).total) == (2, 2, 1, 1, 2)


def test_an_annotation_that_is_changed_is_judged_as_it_is_now(record: Record) -> None:
    submit(record, [0])
    changed = {**ANNOTATIONS[0], "result": ANNOTATIONS[0]["result"][:1]}
    record.follower.annotated(PROJECT, changed, task_of(1), CONFIG)
    record.follower.settle()
    assert counts(figures(record.store, Wanted([PROJECT])).total) == (1, 0, 0, 2, 0)


def test_intervals_and_few(record: Record) -> None:
    submit(record, list(range(len(ANNOTATIONS))))
    total = figures(record.store, Wanted([PROJECT])).total
    interval = total.interval("accepted")  # Wilson's of 3 of 9, computed by hand
    assert interval is not None and total.few
    assert (interval.low, interval.high) == (pytest.approx(0.1206, abs=1e-4), pytest.approx(0.6458, abs=1e-4))
    assert total.share("used") == pytest.approx(7 / 9)


def test_what_webhooks_tell_during_a_reading_stays(record: Record) -> None:
    submit(record, list(range(len(ANNOTATIONS))))
    changed = {**ANNOTATIONS[0], "result": ANNOTATIONS[0]["result"][:1], "updated_at": "2026-11-30T12:00:00Z"}

    def meanwhile() -> None:
        record.follower.annotated(PROJECT, changed, task_of(1), CONFIG)
        record.follower.deleted(PROJECT, [12])
        record.follower.settle()

    with studio_api(meanwhile=meanwhile) as api:
        read_project(api, record.store, record.suggestions, PROJECT)
    assert record.store.rows("SELECT objects FROM annotations WHERE annotation = ?", (ANNOTATIONS[0]["id"],)) == [(1,)]
    assert not record.store.knows(PROJECT, 12)


def test_a_task_that_slipped_between_pages_is_not_gone(record: Record) -> None:
    submit(record, list(range(len(ANNOTATIONS))))
    with studio_api(slipped=[1]) as api:
        done = read_project(api, record.store, record.suggestions, PROJECT)
    assert (done.tasks, done.annotations, done.gone) == (6, 5, 0)
    check(record)


def test_an_annotation_never_stays_without_its_outcomes(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(record, [1])
    with monkeypatch.context() as patch:
        patch.setattr(record.store, "judge", lambda *_: 1 / 0)
        submit(record, [0])
        record.follower.deleted(PROJECT, [12])
        record.follower.settle()
    assert not record.store.knows(PROJECT, 11) and record.store.knows(PROJECT, 12)
