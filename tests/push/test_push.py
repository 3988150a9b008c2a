"""Pushed once and for all: whatever is refused, dropped, cut or killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tator_sdk import push as module
from tator_sdk.errors import TatorError
from tator_sdk.push import PredictionsOfVersion, Pushed
from tator_sdk.settings import Settings
from tator_sdk.studio import StudioError
from tests.fake_studio import FakeLabelStudio
from tests.push.material import CONFIG, TASKS, VERSION, prediction


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> FakeLabelStudio:
    made = FakeLabelStudio(CONFIG)
    monkeypatch.setattr("tator_sdk.bulk.open_bulk", lambda _: made.api())
    monkeypatch.setattr("tator_sdk.in_flight.SETTLE_SECONDS", 0.0)
    monkeypatch.setattr("tator_sdk.patience.WAITS_SECONDS", (0.0, 0.0))
    return made


def push(tasks: list[int] = TASKS, together: int = 20, **more: Any) -> Pushed:
    target = PredictionsOfVersion(Settings(), 7, VERSION, together=together, **more)
    return target.push(tasks, prediction, lambda _: None)


def held(studio: FakeLabelStudio) -> Counter[int]:
    return Counter(one.task for one in studio.held if one.model_version == VERSION)


ONCE = Counter(TASKS)


def test_each_task_gets_one_in_few_requests_and_nothing_is_listed(studio: FakeLabelStudio) -> None:
    told: list[int] = []
    target = PredictionsOfVersion(Settings(), 7, VERSION, together=25)
    pushed = target.push(TASKS, prediction, told.append)
    assert (pushed.created, pushed.there, pushed.dropped, pushed.doubles) == (60, 0, (), 0)
    assert [len(request) for request in studio.requests] == [25, 25, 10] and told == [0, 25, 50]
    assert held(studio) == ONCE and studio.listed == 0
    assert [one.task for one in studio.held] == TASKS
    ids = [one.id for one in studio.held]
    assert push() == Pushed(0, 60, ())
    assert [one.id for one in studio.held] == ids and len(studio.requests) == 3


def test_a_request_holds_no_more_bytes_than_may_be(studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    one = len(json.dumps(module.prediction_for(VERSION, 101, prediction(101))))
    monkeypatch.setattr(module, "MOST_BYTES", 7 * one)
    push(together=1000)
    assert [len(request) for request in studio.requests] == [7] * 8 + [4] and held(studio) == ONCE


def test_a_task_that_is_named_twice_gets_one(studio: FakeLabelStudio) -> None:
    assert push([101, 102, 101]).created == 2 and held(studio) == Counter([101, 102])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tag": "nope"}, "nope"),
        ({"label": "Comet"}, "Comet"),
    ],
)
def test_what_the_configuration_does_not_know_is_not_sent(
    studio: FakeLabelStudio, given: dict[str, str], said: str
) -> None:
    target = PredictionsOfVersion(Settings(), 7, VERSION)
    pushed = target.push([101, 102], lambda task: prediction(task, **(given if task == 101 else {})), lambda _: None)
    assert (pushed.created, pushed.dropped) == (1, (101,)) and said in pushed.reasons[101]
    assert held(studio) == Counter([102])


def test_a_refused_one_does_not_take_the_others_with_it(studio: FakeLabelStudio) -> None:
    studio.refuses = {103, 150}
    pushed = push()
    assert pushed.dropped == (103, 150) and pushed.created == 58 and set(pushed.reasons) == {103, 150}
    assert held(studio) == ONCE - Counter([103, 150])


def test_a_body_that_is_too_large_for_a_proxy_is_halved(
    studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = studio.answer

    def proxy(method: str, url: str, content: bytes) -> tuple[int, Any]:
        return (413, "too large") if len(content) > 3000 else answer(method, url, content)

    monkeypatch.setattr(studio, "answer", proxy)
    assert push().created == 60 and held(studio) == ONCE


def test_what_is_dropped_without_a_word_is_counted(studio: FakeLabelStudio) -> None:
    studio.forgets = {104}
    pushed = push()
    assert (pushed.created, pushed.dropped, pushed.reasons) == (59, (104,), {})
    studio.forgets = set()
    assert push().created == 1 and held(studio) == ONCE


def test_a_lost_answer_is_no_reason_to_send_again(studio: FakeLabelStudio) -> None:
    studio.fails = [httpx.ReadTimeout("went through"), httpx.ReadError("cut")]
    assert push().created == 60
    assert len(studio.requests) == 3 and held(studio) == ONCE


def test_it_gives_up_where_nothing_moves_and_goes_on_where_something_does(
    studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = [httpx.ConnectError("refused")]
    answer, calls = studio.answer, Counter[str]()

    def flaky(method: str, url: str, content: bytes) -> tuple[int, Any]:
        calls[method] += 1
        # two of three do not reach it, each time as many as are waited for
        if method == "POST" and calls[method] % 3:
            raise down[0]
        return answer(method, url, content)

    monkeypatch.setattr(studio, "answer", flaky)
    assert push().created == 60 and held(studio) == ONCE
    down[0] = httpx.ConnectError("for good")
    monkeypatch.setattr(studio, "answer", lambda *_: (_ for _ in ()).throw(down[0]))
    with pytest.raises(StudioError, match="cannot be reached"):
        push()


def test_a_refused_token_is_not_tried_again(studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(studio, "answer", lambda *call: (calls.append(call), (401, {}))[1])
    with pytest.raises(StudioError, match="refuses the token"):
        push()
    assert len(calls) == 1


def test_a_project_that_does_not_exist_is_a_sentence(studio: FakeLabelStudio) -> None:
    with pytest.raises(StudioError, match="check the project's number"):
        PredictionsOfVersion(Settings(), 8, VERSION).push(TASKS, prediction, lambda _: None)


def test_without_a_token_it_says_how_to_get_one() -> None:
    with pytest.raises(StudioError, match="LABEL_STUDIO_API_KEY"):
        PredictionsOfVersion(Settings(), 7, VERSION)


def test_late_doubles_go_and_the_first_stays(studio: FakeLabelStudio) -> None:
    first = studio.hold(101, VERSION)
    others = [studio.hold(101, "somebody else's"), studio.hold(101, f"{VERSION}-2")]
    studio.hold(101, VERSION)
    assert push().doubles == 1
    assert [one.id for one in studio.held if one.task == 101] == [first, *others] and held(studio) == ONCE


def test_a_request_that_comes_through_after_it_was_sent_again_leaves_no_double(
    studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, late = studio.answer, []

    def slow(method: str, url: str, content: bytes) -> tuple[int, Any]:
        if method == "POST" and not late:
            late.append((method, url, content))
            raise httpx.ReadTimeout("still at it")
        if method == "POST" and len(late) == 1:
            late.append(answer(*late[0]))  # right behind the second try's list
        return answer(method, url, content)

    monkeypatch.setattr(studio, "answer", slow)
    assert push().doubles == 20 and held(studio) == ONCE


def test_two_at_once_are_refused(studio: FakeLabelStudio) -> None:
    def again(_: int) -> None:
        with pytest.raises(TatorError, match="pushed by another process"):
            push()

    PredictionsOfVersion(Settings(), 7, VERSION).push(TASKS[:1], prediction, again)
    assert held(studio) == Counter(TASKS[:1])


def test_a_damaged_note_is_said(studio: FakeLabelStudio) -> None:
    push(TASKS[:1])
    (lock,) = (Settings().home / "pushes").iterdir()
    lock.with_suffix("").write_text("{")
    with pytest.raises(TatorError, match="is damaged"):
        push()


def run_worker(url: str, home: Path, moment: str, request: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.push.worker", url, str(home), moment, str(request)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("moment", ["before sending", "sent", "answered"])
def test_after_kill_9_at_a_moment_the_next_run_completes(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tator_sdk.in_flight.SETTLE_SECONDS", 0.8)
    monkeypatch.setattr("tator_sdk.in_flight.POLL_SECONDS", 0.05)
    studio = FakeLabelStudio(CONFIG, write_seconds=0.2)  # longer than the next run takes to look
    other = [studio.hold(TASKS[0], "somebody else's"), studio.hold(TASKS[1], "Tator")]
    with studio.served() as url:
        assert run_worker(url, tmp_path, moment, 2).returncode == -9
        before = {one.id for one in studio.held}
        settings = Settings(home=tmp_path, label_studio_url=url, label_studio_api_key=SecretStr("legacy"))
        pushed = PredictionsOfVersion(settings, 7, VERSION, together=20).push(TASKS, prediction, lambda _: None)
    assert held(studio) == ONCE and before <= {one.id for one in studio.held}
    assert [one.id for one in studio.held if one.model_version != VERSION] == other
    assert pushed.created + pushed.there == 60 and pushed.doubles == 0


@pytest.mark.parametrize("seconds", [0.0, 0.4])
def test_a_cut_connection_is_taken_up_in_the_same_run(
    seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where Label Studio writes it only after it was cut: it is waited for, and nothing is sent twice."""
    monkeypatch.setattr("tator_sdk.in_flight.SETTLE_SECONDS", 1.0)
    monkeypatch.setattr("tator_sdk.patience.WAITS_SECONDS", (0.05,))
    studio = FakeLabelStudio(CONFIG, cuts=[seconds])
    with studio.served() as url:
        settings = Settings(label_studio_url=url, label_studio_api_key=SecretStr("legacy"))
        pushed = PredictionsOfVersion(settings, 7, VERSION, together=20).push(TASKS, prediction, lambda _: None)
    assert (pushed.created, pushed.doubles) == (60, 0)
    assert held(studio) == ONCE and len(studio.requests) == 3
