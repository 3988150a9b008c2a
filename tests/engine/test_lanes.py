"""Lanes: order, bounds, ages, and newer requests in the place of older ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, wait

import pytest

from tator_ml.engine.lanes import MOST_FLIGHTS, About, Lane, Lanes
from tator_ml.engine.messages import Busy, Superseded


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    made = Lanes({Lane.CLICK: 4, Lane.PRELOAD: 4, Lane.WORDS: 4, Lane.BATCH: 4})
    yield made
    made.close()


@pytest.fixture
def gate(lanes: Lanes) -> Iterator[threading.Event]:
    """Until it is set, the device is at work on something else."""
    opened, begun = threading.Event(), threading.Event()
    lanes.submit(Lane.CLICK, lambda: begun.set() or opened.wait(10))
    assert begun.wait(5)
    yield opened
    opened.set()


def click(task: str, *ids: str) -> About:
    return About(task=task, prompt_ids=frozenset(ids))


@pytest.mark.parametrize(
    ("older", "newer", "drops"),
    [
        (("1", "a"), ("1", "a", "b"), True),
        (("1", "a"), ("1", "a"), True),
        (("1", "a", "b"), ("1", "b"), False),
        (("1", "a"), ("1", "b"), False),
        (("1", "a"), ("2", "a", "b"), False),
        (("", "a"), ("", "a", "b"), False),
        (("1",), ("1", "a"), False),
    ],
)
def test_a_newer_request_that_contains_the_older_one_replaces_it(
    lanes: Lanes, gate: threading.Event, older: tuple[str, ...], newer: tuple[str, ...], drops: bool
) -> None:
    first = lanes.enter(Lane.CLICK, click(*older))
    lanes.ready(first, lambda: "older")
    second = lanes.enter(Lane.CLICK, click(*newer))
    lanes.ready(second, lambda: "newer")
    if drops:
        with pytest.raises(Superseded, match="newer click"):
            first.future.result(1)
    gate.set()
    assert second.future.result(5) == "newer"
    assert drops or first.future.result(5) == "older"
    assert lanes.superseded == drops


def test_what_has_started_is_finished(lanes: Lanes) -> None:
    begun, go_on = threading.Event(), threading.Event()
    first = lanes.enter(Lane.CLICK, click("1", "a"))
    lanes.ready(first, lambda: begun.set() or go_on.wait(5))
    assert begun.wait(5)
    second = lanes.enter(Lane.CLICK, click("1", "a", "b"))
    go_on.set()
    assert first.future.result(5) is True
    lanes.leave(second)


def test_a_request_is_superseded_while_its_picture_is_still_decoded(lanes: Lanes) -> None:
    first = lanes.enter(Lane.CLICK, click("1", "a"))
    second = lanes.enter(Lane.CLICK, click("1", "a", "b"))
    lanes.ready(first, lambda: pytest.fail("it was superseded"))
    lanes.ready(second, lambda: 2)
    assert second.future.result(5) == 2
    assert isinstance(first.future.exception(1), Superseded)


def test_a_full_lane_takes_what_makes_its_own_room(lanes: Lanes, gate: threading.Event) -> None:
    for number in range(4):
        lanes.enter(Lane.CLICK, click("1", str(number)))
    with pytest.raises(Busy):
        lanes.enter(Lane.CLICK, click("2", "0"))
    lanes.enter(Lane.CLICK, click("1", "0", "4"))
    assert lanes.waiting()["click"] == 4


def test_order_is_that_of_coming_within_a_lane_and_clicks_go_first(lanes: Lanes, gate: threading.Event) -> None:
    done: list[str] = []
    places = [
        ("batch", lanes.enter(Lane.BATCH)),
        ("preload", lanes.enter(Lane.PRELOAD)),
        ("first", lanes.enter(Lane.CLICK)),
        ("second", lanes.enter(Lane.CLICK)),
    ]
    for name, ticket in reversed(places):
        lanes.ready(ticket, lambda name=name: done.append(name))
    gate.set()
    for _, ticket in places:
        ticket.future.result(5)
    assert done == ["first", "second", "preload", "batch"]


def test_waiting_ages(lanes: Lanes, gate: threading.Event) -> None:
    lanes.enter(Lane.PRELOAD)
    time.sleep(0.05)
    lanes.enter(Lane.PRELOAD)
    ages = lanes.oldest_seconds()
    assert 0.05 <= ages["preload"] < 5 and ages["click"] == ages["batch"] == 0
    assert lanes.waiting() == {"click": 0, "preload": 2, "words": 0, "batch": 0}


def test_latencies_count_waiting_and_failures(lanes: Lanes, gate: threading.Event) -> None:
    def fails() -> None:
        raise ValueError

    results = [lanes.submit(Lane.CLICK, work) for work in (lambda: None, fails)]
    time.sleep(0.05)
    gate.set()
    lanes.submit(Lane.WORDS, lambda: None).result(5)  # what came before is recorded by then
    assert isinstance(results[1].exception(5), ValueError)
    found = lanes.latencies()
    assert found["click"].count == 3 and 0.05 <= found["click"].p50 < 5
    assert lanes.latencies() is found, "whoever looks on each second is told the same for a while"


def test_unwanted_preloads_are_dropped_and_clicks_stay(lanes: Lanes, gate: threading.Event) -> None:
    tickets = {name: lanes.enter(Lane.PRELOAD, About(image=name, group="7")) for name in "abc"}
    stays = lanes.enter(Lane.CLICK, About(image="a"))
    assert lanes.waits(Lane.PRELOAD, "a", "") and not lanes.waits(Lane.PRELOAD, "a", "sam2-tiny")
    assert lanes.drop(Lane.PRELOAD, lambda about: about.image != "b") == 2
    for name in "ac":
        with pytest.raises(CancelledError):
            tickets[name].future.result(0)
    assert lanes.waiting() == {"click": 1, "preload": 1, "words": 0, "batch": 0} and lanes.dropped == 2
    lanes.leave(stays)


def test_closing_ends_what_waits() -> None:
    lanes = Lanes()
    waits = lanes.enter(Lane.CLICK)
    lanes.close()
    assert waits.future.cancelled()
    with pytest.raises(Busy, match="stopping"):
        lanes.enter(Lane.CLICK)


def test_a_click_goes_between_the_parts_of_a_long_encoding(lanes: Lanes) -> None:
    done: list[str] = []
    begun, clicked = threading.Event(), threading.Event()

    def encoding() -> None:
        begun.set()
        assert clicked.wait(5)
        for part in range(3):
            lanes.pause()
            done.append(f"part {part}")

    long = lanes.submit(Lane.BATCH, encoding, About("next"))
    assert begun.wait(5)
    first = lanes.submit(Lane.CLICK, lambda: done.append("click"), About("other"))
    preload = lanes.submit(Lane.PRELOAD, lambda: done.append("preload"), About("third"))
    clicked.set()
    for one in (long, first, preload):
        one.result(5)
    assert done == ["click", "preload", "part 0", "part 1", "part 2"]


def test_what_is_let_pass_pauses_for_better_lanes_alone(lanes: Lanes) -> None:
    done: list[str] = []

    def preload() -> None:
        later = lanes.submit(Lane.BATCH, lambda: done.append("batch"))
        lanes.submit(Lane.CLICK, lambda: lanes.pause() or done.append("click"))
        lanes.pause()
        assert not later.done()
        done.append("preload")

    def batch() -> None:
        lanes.submit(Lane.PRELOAD, preload)
        lanes.pause()
        done.append("encoding")

    lanes.submit(Lane.BATCH, batch).result(5)
    until = time.monotonic() + 5
    while "batch" not in done and time.monotonic() < until:
        time.sleep(0.01)
    assert done == ["click", "preload", "encoding", "batch"]


def test_a_click_on_the_picture_that_is_being_encoded_waits_for_its_end(lanes: Lanes) -> None:
    done: list[str] = []

    def encoding() -> None:
        lanes.submit(Lane.CLICK, lambda: done.append("same"), About("picture"))
        lanes.submit(Lane.CLICK, lambda: done.append("other"), About("another"))
        lanes.pause()
        done.append("encoded")

    lanes.submit(Lane.PRELOAD, encoding, About("picture")).result(5)
    lanes.submit(Lane.BATCH, lambda: None).result(5)
    assert done == ["other", "encoded", "same"]


def test_a_pause_on_another_thread_does_nothing(lanes: Lanes, gate: threading.Event) -> None:
    waiting = lanes.submit(Lane.CLICK, lambda: None)
    lanes.pause()
    assert not waiting.done()
    gate.set()


def test_questions_in_words_go_before_jobs_but_not_into_an_encoding(lanes: Lanes) -> None:
    done: list[str] = []

    def encoding() -> None:
        lanes.submit(Lane.WORDS, lambda: done.append("words"))
        lanes.submit(Lane.CLICK, lambda: done.append("click"))
        lanes.pause()
        done.append("encoding")

    def question() -> None:
        lanes.submit(Lane.WORDS, lambda: done.append("words"))
        lanes.submit(Lane.PRELOAD, lambda: done.append("preload"))
        lanes.pause(words=True)
        done.append("question")

    lanes.submit(Lane.BATCH, encoding).result(5)
    lanes.submit(Lane.BATCH, question).result(5)
    assert done == ["click", "encoding", "words", "preload", "words", "question"]


def test_what_is_in_flight_is_told_one_by_one(lanes: Lanes, gate: threading.Event) -> None:
    batch = lanes.enter(Lane.BATCH, About(what="masks of 8 boxes"))
    lanes.ready(batch, lambda: None)
    lanes.enter(Lane.CLICK, About("picture", "sam2-tiny", task="3/17", what="1 box"))
    preload = lanes.enter(Lane.PRELOAD, About("other", group="3/other"))
    lanes.ready(preload, lambda: None)
    told = lanes.flights()
    assert [(one.lane, one.state) for one in told] == [
        ("click", "running"), ("preload", "waiting"), ("batch", "waiting"), ("click", "preparing")
    ]  # fmt: skip
    assert (told[3].task, told[3].image, told[3].segmenter) == ("3/17", "picture", "sam2-tiny")
    assert told[1].task == "3/other" and told[2].what == "masks of 8 boxes"
    assert all(0 <= one.seconds < 5 for one in told)
    gate.set()
    wait([batch.future, preload.future], 5)
    assert [one.state for one in lanes.flights() if one.state != "running"] == ["preparing"]


def test_of_very_many_in_flight_the_first_are_told() -> None:
    lanes = Lanes()
    gate = threading.Event()
    lanes.submit(Lane.CLICK, lambda: gate.wait(10))
    for _ in range(200):
        lanes.submit(Lane.BATCH, lambda: None)
    lanes.enter(Lane.CLICK)
    assert len(lanes.flights()) == MOST_FLIGHTS
    gate.set()
    lanes.close()
