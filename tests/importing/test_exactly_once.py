"""Each picture comes exactly once, whatever is killed, refused, cut off, late, or done twice at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from tator_sdk.delivery import Delivery
from tator_sdk.errors import TatorError
from tator_sdk.import_record import ImportRecord
from tator_sdk.importing import Importer
from tator_sdk.picture_addresses import Uploaded
from tator_sdk.requests import DataImport
from tator_sdk.settings import Settings
from tests.fake_studio import FakeLabelStudio
from tests.formats.material import folder
from tests.importing.conftest import CONFIG, OUTLINE, Run


def pictures(yolo: Path, count: int) -> None:
    folder(yolo, {f"images/{number:02}.png": "" for number in range(count)})
    folder(yolo, {f"labels/{number:02}.txt": OUTLINE for number in range(count)})


class KilledError(Exception):
    pass


@pytest.mark.parametrize("moment", ["before sending", "sent", "answered"])
@pytest.mark.parametrize("uploaded", [True, False])
def test_after_a_kill_in_the_middle_the_next_run_completes(
    studio: FakeLabelStudio, yolo: Path, monkeypatch: pytest.MonkeyPatch, moment: str, uploaded: bool
) -> None:
    pictures(yolo, 22)
    monkeypatch.setattr(Delivery, "TASKS_TOGETHER", 5)
    monkeypatch.setattr(Delivery, "UPLOADED_TOGETHER", 5)
    passed: list[str] = []

    def moments(now: str) -> None:
        passed.append(now)
        if passed.count(moment) == 3:
            raise KilledError

    place = {} if uploaded else {"local_files": yolo.parent}
    if moment == "sent":  # httpx tells of it on a real connection only
        studio.fails, moments = [KilledError()], lambda now: None  # type: ignore[list-item]
    with pytest.raises(KilledError):
        Run(yolo, moments=moments, **place)
    before = dict(studio.tasks)
    assert 0 < len(before) < 25
    second = Run(yolo, **place).report
    assert (second.created, second.there) == (25 - len(before), len(before))
    assert len(studio.tasks) == 25 and len({task["meta"]["tator"]["key"] for task in studio.tasks.values()}) == 25
    assert {number: studio.tasks[number] for number in before} == before
    assert len({task["meta"]["tator"]["import"] for task in studio.tasks.values()}) == 1
    assert len(studio.uploads) == (25 if uploaded else 0)  # what was uploaded in vain is gone again


def test_after_a_refusal_and_a_kill_uploads_of_tasks_that_are_there_stay(
    studio: FakeLabelStudio, yolo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of five is refused, so the five are cut into smaller requests, of which one is never sent."""
    pictures(yolo, 2)
    monkeypatch.setattr(Delivery, "UPLOADED_TOGETHER", 5)
    studio.refused_names = {"00.png"}  # the first by name
    passed: list[str] = []

    def moments(now: str) -> None:
        passed.append(now)
        if passed.count("answered") == 1:
            raise KilledError

    with pytest.raises(KilledError):
        Run(yolo, moments=moments)
    (there,) = [task["file_upload_id"] for task in studio.tasks.values()]
    assert len(studio.uploads) == 4 and there in studio.uploads
    assert Run(yolo).report.refused == 1
    assert sorted(task["file_upload_id"] for task in studio.tasks.values()) == sorted(studio.uploads)
    assert len(studio.uploads) == 4


def test_one_upload_that_fails_is_done_again_by_itself(
    studio: FakeLabelStudio, yolo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Uploaded, "MOST_FILES", 1)
    answer, sent = studio.answer, []

    def failing(method: str, url: str, content: bytes) -> tuple:
        if method == "POST" and content[:1] == b"-":  # the parts of an upload
            sent.append(url)
            if len(sent) == 3:
                return 502, {}
        return answer(method, url, content)

    monkeypatch.setattr(studio, "answer", failing)
    assert Run(yolo).report.created == 3 == len(studio.uploads) and len(sent) == 4


def test_of_twins_only_one_stays_unless_people_worked_on_both() -> None:
    """Three of a picture, two of them worked on: the third goes; of two that nobody touched, the newer one."""
    studio = FakeLabelStudio(CONFIG)
    record = ImportRecord("import-7-0123456789ab", 7, {})
    for number, (key, drafts) in enumerate([("a", 1), ("a", 0), ("a", 1), ("a", 0), ("b", 0), ("b", 0)], 1):
        mark = {"tator": {"import": record.id, "key": key}}
        studio.tasks[number] = {"id": number, "meta": mark, "data": {}, "annotations": [], "drafts": [1] * drafts}
    request = DataImport(path=Path("x"), kind="yolo", project=7)
    api = studio.api()
    delivery = Delivery(api, request, record, "image", Uploaded(api, 7), Path("x"), lambda moment: None)
    delivery.doubtful = True
    assert delivery.remove_doubles() == 3 and list(studio.tasks) == [1, 3, 5]


@pytest.mark.parametrize("moment", ["before sending", "sent", "answered"])
def test_after_kill_9_the_next_run_completes(yolo: Path, tmp_path: Path, moment: str, monkeypatch) -> None:
    pictures(yolo, 22)
    monkeypatch.setattr("tator_sdk.in_flight.POLL_SECONDS", 0.05)
    studio = FakeLabelStudio(CONFIG, write_seconds=0.3)
    with studio.served() as url:
        command = [sys.executable, "-m", "tests.importing.worker", url, str(tmp_path / "h"), str(yolo), moment]
        assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
        settings = Settings(home=tmp_path / "h", label_studio_url=url, label_studio_api_key=SecretStr("legacy"))
        report = Importer(DataImport(path=yolo, kind="yolo", project=7), settings).run()
    assert report.created + report.there == 25 == len(studio.tasks) == len(studio.uploads)
    assert report.there == (10 if moment == "before sending" else 15) and report.notes == []
    assert len({task["meta"]["tator"]["key"] for task in studio.tasks.values()}) == 25


def test_a_lost_answer_and_a_late_request(studio: FakeLabelStudio, yolo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(yolo, 22)
    monkeypatch.setattr(Delivery, "TASKS_TOGETHER", 5)
    studio.fails = [httpx.ReadTimeout("went through")]
    assert Run(yolo, local_files=yolo.parent).report.created == 25 == len(studio.tasks)
    studio.tasks.clear()
    answer, late = studio.answer, []

    def slow(method: str, url: str, content: bytes) -> tuple:
        if method == "POST" and url.endswith("/import") and not late:
            late.append((method, url, content))
            raise httpx.ReadTimeout("still at it")
        if method == "POST" and len(late) == 1:
            late.append(answer(*late[0]))  # comes through right before it is sent again
        return answer(method, url, content)

    monkeypatch.setattr(studio, "answer", slow)
    report = Run(yolo, local_files=yolo.parent).report
    assert len(studio.tasks) == 25 and "came through twice" in report.notes[-1]


def test_a_killed_run_s_request_that_comes_through_late_makes_no_twins(
    studio: FakeLabelStudio, yolo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for, in vain; it is written while the same pictures are sent again."""
    pictures(yolo, 22)
    monkeypatch.setattr(Delivery, "TASKS_TOGETHER", 5)
    answer, late = studio.answer, []

    def slow(method: str, url: str, content: bytes) -> tuple:
        if method == "POST" and url.endswith("/import") and not late:
            late.append((method, url, content))
            raise KilledError
        if method == "POST" and len(late) == 1:
            late.append(answer(*late[0]))
        return answer(method, url, content)

    monkeypatch.setattr(studio, "answer", slow)
    with pytest.raises(KilledError):
        Run(yolo, local_files=yolo.parent)
    report = Run(yolo, local_files=yolo.parent).report
    assert len(late) == 2 and len(studio.tasks) == 25 and "came through twice" in report.notes[-1]


def test_two_at_once_are_refused(studio: FakeLabelStudio, yolo: Path) -> None:
    def moments(now: str) -> None:
        with pytest.raises(TatorError, match="Another import into project 7"):
            Run(yolo)

    assert Run(yolo, moments=moments).report.created == 3 == len(studio.tasks)
