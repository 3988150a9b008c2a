"""``connect`` and ``doctor`` against a real Label Studio, with both kinds of token."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from demo.stack import DemoStack
from tator_sdk.connect import TITLE, Connection, webhook_headers
from tator_sdk.doctor import examine
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings
from tator_sdk.studio import open_studio

pytestmark = [pytest.mark.studio, pytest.mark.timeout(400)]

BOXES = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">'
    '<Label value="Car"/></RectangleLabels></View>'
)


@pytest.fixture
def studio(stack: DemoStack) -> Any:
    return open_studio(stack.settings)


@pytest.fixture
def project(studio: Any) -> Any:
    """A project of somebody who has never heard of Tator."""
    made = studio.projects.create(title="Cars of mine", label_config=BOXES)
    yield made.id
    studio.projects.delete(made.id)


def rows(studio: Any, project: int) -> list[Any]:
    return list(studio.ml.list(project=project))


def hooks(studio: Any, project: int) -> list[Any]:
    return list(studio.webhooks.list(project=str(project)))


def with_token(stack: DemoStack, kind: str) -> Settings:
    token = stack.studio.account.token if kind == "legacy" else stack.studio.personal_access_token()
    return stack.settings.model_copy(update={"label_studio_api_key": SecretStr(token)})


@pytest.mark.parametrize("kind", ["legacy", "personal"])
def test_connecting_twice_makes_one_of_everything(stack: DemoStack, studio: Any, project: int, kind: str) -> None:
    connection = Connection(with_token(stack, kind), project, stack.settings.backend_url)
    first = connection.run()
    assert {step.outcome for step in first} <= {"done", "kept", "advice"}
    second = connection.run()
    assert not [step for step in second if step.outcome in {"done", "failed"}], second
    (row,) = rows(studio, project)
    assert row.is_interactive and str(row.state) == "CO" and row.title == TITLE
    assert len(hooks(studio, project)) == 1
    assert studio.projects.get(project).model_version == TITLE
    assert studio.projects.get(project).label_config == BOXES, "the configuration is the user's"


def test_a_broken_connection_is_repaired(stack: DemoStack, studio: Any, project: int) -> None:
    url = stack.settings.backend_url
    studio.ml.create(url=url, project=project, title="half", is_interactive=False)
    studio.ml.create(url=url + "/", project=project, title="double", is_interactive=False)
    (hook,) = hooks(studio, project)
    studio.webhooks.update(hook.id, headers={"Authorization": "Basic wrong"}, is_active=False, send_payload=True)
    assert {check.name for check in examine(stack.settings, url, project) if check.level == "bad"} >= {"webhook"}
    Connection(stack.settings, project, url).run()
    (row,) = rows(studio, project)
    (hook,) = hooks(studio, project)
    assert row.is_interactive and row.title == TITLE and (hook.headers or {}) == {} and hook.is_active
    assert not [check for check in examine(stack.settings, url, project) if check.level == "bad"]


def test_what_the_configuration_lacks_is_shown_to_paste(stack: DemoStack, studio: Any, project: int) -> None:
    steps = Connection(stack.settings, project, stack.settings.backend_url).run()
    snippets = [step.snippet for step in steps if step.snippet and "KeyPointLabels" in step.snippet]
    assert snippets and "Car" in snippets[0]


def test_doctor_finds_the_whole_chain_well(stack: DemoStack) -> None:
    checks = list(examine(stack.settings, stack.settings.backend_url, stack.project))
    assert not [check for check in checks if check.level == "bad"], checks
    names = {check.name for check in checks}
    assert {
        "Label Studio",
        "token",
        "backend",
        "engine",
        "weights",
        "Redis",
        "worker",
        "connection",
        "webhook",
    } <= names


def test_doctor_says_what_is_wrong(stack: DemoStack) -> None:
    wrong = stack.settings.model_copy(update={"label_studio_api_key": SecretStr("0" * 40)})
    (token,) = [check for check in examine(wrong, "http://127.0.0.1:9", 1) if check.name == "token"]
    assert token.level == "bad" and "personal access token" in token.mend
    away = [check for check in examine(stack.settings, "http://127.0.0.1:9", None) if check.name == "backend"]
    assert away[0].level == "bad" and "tator up" in away[0].mend


def test_refusals_are_sentences(stack: DemoStack) -> None:
    with pytest.raises(TatorError, match="tator up"):
        Connection(stack.settings, stack.project, "http://127.0.0.1:9").run()
    with pytest.raises(TatorError, match="is not Tator"):
        Connection(stack.settings, stack.project, stack.studio.url).run()
    with pytest.raises(TatorError, match="404"):
        Connection(stack.settings, 999_999, stack.settings.backend_url).run()


def test_opening_and_retrieving_leave_no_empty_prediction(stack: DemoStack, studio: Any) -> None:
    tasks = [task.id for task in studio.tasks.list(project=stack.project)][:3]
    for task in tasks:
        studio.tasks.get(str(task))
    from tator_sdk.auth import LabelStudioAuth

    auth = LabelStudioAuth(stack.studio.url, stack.studio.personal_access_token())
    with httpx.Client(base_url=stack.studio.url, auth=auth, timeout=60, trust_env=False) as client:
        selected = {"selectedItems": {"all": False, "included": tasks}, "project": str(stack.project)}
        address = f"/api/dm/actions?id=retrieve_tasks_predictions&project={stack.project}"
        assert client.post(address, json=selected).is_success
    assert list(studio.predictions.list(project=stack.project)) == []


def test_start_training_is_answered(stack: DemoStack, studio: Any) -> None:
    studio.ml.train(stack.backend)
    assert str(rows(studio, stack.project)[0].state) == "CO"


def test_password_reaches_the_webhook_header() -> None:
    settings = Settings(password=SecretStr("secret"))
    assert webhook_headers(settings) == {"Authorization": "Basic dGF0b3I6c2VjcmV0"}
