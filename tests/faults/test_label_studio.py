"""Label Studio is dead, slow, refuses or breaks off in the middle of work: waited for, told, and nothing lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tator_sdk import push
from tator_sdk.auth import LabelStudioAuth, TokenRefused
from tator_sdk.bulk import open_bulk
from tator_sdk.errors import TatorError
from tator_sdk.importing import Importer
from tator_sdk.requests import DataImport
from tator_sdk.settings import Settings
from tator_sdk.studio import StudioError, open_studio, sentences
from tests.fake_studio import FakeLabelStudio
from tests.faults.studio import FailingStudio, Mishap, token
from tests.formats.material import folder
from tests.push.material import CONFIG as PUSHED
from tests.push.material import VERSION, prediction

PASSING: tuple[Mishap, ...] = ("dead", "slow", "half", "page", 429, 500)
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image"><Label value="Car"/>'
    "</RectangleLabels></View>"
)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tator_sdk.patience.WAITS_SECONDS", (0.0, 0.01, 0.02))
    monkeypatch.setattr("tator_sdk.bulk.ANSWER_SECONDS", 0.3)
    monkeypatch.setattr("tator_sdk.bulk.WRITE_SECONDS", 0.3)
    monkeypatch.setattr("tator_sdk.in_flight.SETTLE_SECONDS", 0.6)
    monkeypatch.setattr("tator_sdk.in_flight.POLL_SECONDS", 0.05)


@pytest.fixture
def studio() -> FailingStudio:
    return FailingStudio(FakeLabelStudio(PUSHED), slow_seconds=0.5)


@pytest.fixture
def settings(studio: FailingStudio) -> Iterator[Settings]:
    with studio.served() as url:
        yield Settings(label_studio_url=url, label_studio_api_key=SecretStr("legacy"))


def posts(path: str) -> Any:
    return lambda method, where: method == "POST" and where.endswith(path)


@pytest.mark.parametrize("mishap", PASSING)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_push_goes_through_once(settings: Settings, studio: FailingStudio, mishap: Mishap, method: str) -> None:
    studio.mishaps = [mishap]
    studio.fails = posts("/import/predictions") if method == "POST" else lambda said, _: said == "GET"
    tasks = list(range(1, 6))
    pushed = push.PredictionsOfVersion(settings, 7, VERSION).push(tasks, prediction, lambda _: None)
    assert sorted(one.task for one in studio.fake.held) == tasks and not studio.mishaps
    assert pushed.created + pushed.there == 5 and not pushed.dropped


@pytest.mark.parametrize("mishap", PASSING)
def test_an_import_goes_through_once(settings: Settings, studio: FailingStudio, mishap: Mishap, tmp_path: Path) -> None:
    studio.mishaps, studio.fails, studio.fake.config = [mishap], posts("/api/projects/7/import"), CONFIG
    made = folder(tmp_path / "set", {"classes.txt": "Car", "images/a.png": "", "labels/a.txt": "0 0.5 0.5 0.2 0.4"})
    Importer(DataImport(path=made, kind="yolo", project=7), settings).run()
    assert len(studio.fake.tasks) == 1 and not studio.mishaps


@pytest.mark.parametrize("mishap", PASSING)
def test_what_does_not_pass_is_a_sentence(settings: Settings, studio: FailingStudio, mishap: Mishap) -> None:
    studio.mishaps = [mishap] * 20
    with pytest.raises(StudioError, match=r"^Label Studio at http://127.0.0.1:\d+ [^\n]{10,200}$") as told:
        push.PredictionsOfVersion(settings, 7, VERSION).push([1, 2], prediction, lambda _: None)
    assert told.value.passing and "Traceback" not in str(told.value)
    studio.mishaps.clear()
    push.PredictionsOfVersion(settings, 7, VERSION).push([1, 2], prediction, lambda _: None)
    assert sorted(one.task for one in studio.fake.held) == [1, 2]


@pytest.mark.parametrize("mishap", ["dead", "half", "page", 500])
def test_the_other_client_says_the_same(settings: Settings, studio: FailingStudio, mishap: Mishap) -> None:
    client: Any = open_studio(settings)
    studio.mishaps = [mishap] * 5
    with pytest.raises(StudioError) as told, sentences(settings.label_studio_url):
        client.projects.get(7, request_options={"max_retries": 0})
    assert told.value.passing, told.value
    studio.mishaps.clear()


@pytest.mark.parametrize("mishap", ["dead", "half", "page", 429, 500])
def test_a_token_that_cannot_be_exchanged_now_is_no_refusal(
    settings: Settings, studio: FailingStudio, mishap: Mishap
) -> None:
    personal = token(3600, kind="refresh")
    studio.refresh, studio.access = {personal}, {}
    mine = settings.model_copy(update={"label_studio_api_key": SecretStr(personal)})
    studio.mishaps, studio.fails = [mishap], posts("/api/token/refresh/")
    with open_bulk(mine) as api, pytest.raises(StudioError) as told:
        api.get("/api/projects/7/")
    assert told.value.passing, told.value
    studio.mishaps = [mishap]
    push.PredictionsOfVersion(mine, 7, VERSION).push([1, 2], prediction, lambda _: None)
    assert sorted(one.task for one in studio.fake.held) == [1, 2] and not studio.mishaps


def test_a_token_that_ends_in_the_middle_is_renewed(settings: Settings, studio: FailingStudio) -> None:
    personal = token(3600, kind="refresh")
    studio.refresh, studio.access, studio.access_seconds = {personal}, {}, 60.0
    mine = settings.model_copy(update={"label_studio_api_key": SecretStr(personal)})

    def moments(now: str) -> None:
        if now == "before sending":
            studio.access = {}  # none that was given before is taken any more

    target = push.PredictionsOfVersion(mine, 7, VERSION, moments, together=2)  # type: ignore[arg-type]
    target.push(list(range(1, 8)), prediction, lambda _: None)
    assert sorted(one.task for one in studio.fake.held) == list(range(1, 8))
    assert studio.exchanges >= 4


def test_a_token_that_is_revoked_in_the_middle_is_told_and_the_rest_follows(
    settings: Settings, studio: FailingStudio
) -> None:
    personal, new = token(3600, kind="refresh"), token(7200, kind="refresh")
    studio.refresh, studio.access = {personal}, {}
    mine = settings.model_copy(update={"label_studio_api_key": SecretStr(personal)})
    sent: list[str] = []

    def moments(now: str) -> None:
        sent.append(now)
        if sent.count("before sending") == 3:
            studio.refresh, studio.access = {new}, {}

    target = push.PredictionsOfVersion(mine, 7, VERSION, moments, together=2)  # type: ignore[arg-type]
    with pytest.raises(TatorError, match=r"make a (new one|personal access token) under Account & Settings"):
        target.push(list(range(1, 8)), prediction, lambda _: None)
    assert sorted(one.task for one in studio.fake.held) == [1, 2, 3, 4]
    renewed = mine.model_copy(update={"label_studio_api_key": SecretStr(new)})
    push.PredictionsOfVersion(renewed, 7, VERSION, together=2).push(list(range(1, 8)), prediction, lambda _: None)
    assert sorted(one.task for one in studio.fake.held) == list(range(1, 8))


def test_a_refused_personal_token_is_not_asked_for_twice(settings: Settings, studio: FailingStudio) -> None:
    studio.access = {}
    auth = LabelStudioAuth(settings.label_studio_url, token(3600))
    with httpx.Client(auth=auth) as client, pytest.raises(TokenRefused, match="make a new one"):
        client.get(f"{settings.label_studio_url}/api/users")
    assert studio.requests == [("POST", "/api/token/refresh/")]
