"""Signing in and the Team page in a real browser: a web process with a password beside the stack's own."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from werkzeug.serving import make_server

from demo.stack import DemoStack
from tator_ml.services import build_services
from tator_ml.web.app import create_app
from tator_sdk.settings import Settings
from tator_sdk.studio import open_studio

from .dashboard import check_accessible, check_fits_a_phone, opened, picture

pytestmark = [pytest.mark.browser, pytest.mark.studio, pytest.mark.timeout(400)]

PICTURES = os.environ.get("TATOR_PICTURES") == "1"
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">'
    '<Label value="Car"/></RectangleLabels></View>'
)


@pytest.fixture(scope="module")
def locked(stack: DemoStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a dashboard with a password, over the stack's engine and Label Studio."""
    change = {
        "home": tmp_path_factory.mktemp("locked"),
        "engine_address": stack.settings.engine_addresses[0],
        "password": SecretStr("a long password"),
        "port": stack.settings.port + 5,
    }
    settings = Settings.model_validate({**stack.settings.model_dump(), **change})
    app = create_app(settings, build_services(settings))
    server = make_server(settings.host, settings.port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield settings.backend_url
    server.shutdown()
    server.server_close()
    app.extensions["tator_watch"].stop()


@pytest.fixture
def project(stack: DemoStack) -> Iterator[int]:
    """A project with tasks, one of them begun and some done."""
    studio: Any = open_studio(stack.settings)
    made = studio.projects.create(title="Cars of the north", label_config=CONFIG)
    tasks = [{"data": {"image": f"/data/local-files/?d=none/{row}.png"}} for row in range(12)]
    numbers = studio.projects.import_tasks(id=made.id, request=tasks, return_task_ids=True).task_ids
    for number in numbers[:2]:
        studio.annotations.create(number, result=[])
    headers = {"Authorization": f"Token {stack.studio.account.token}"}
    httpx.post(f"{stack.studio.url}/api/tasks/{numbers[2]}/drafts", json={"result": []}, headers=headers)
    yield int(made.id)
    studio.projects.delete(made.id)


def test_signing_in_and_handing_out_work(
    page: Any, stack: DemoStack, locked: str, project: int, tmp_path: Path
) -> None:
    folder = None if PICTURES else tmp_path
    with opened(page, f"{locked}/tator/team?project={project}") as tab:
        assert "/tator/sign-in" in tab.url
        check_accessible(tab)
        check_fits_a_phone(tab)
        picture(tab, "dashboard-sign-in", folder)
        tab.get_by_role("textbox", name="Token").fill(stack.studio.account.token)
        tab.keyboard.press("Enter")
        tab.wait_for_url(f"**/tator/team?project={project}")
        assert stack.studio.account.username in tab.locator("header").inner_text()

        tab.get_by_text("Who is where").wait_for()
        row = tab.locator("#activity tbody tr").first
        assert stack.studio.account.username in row.inner_text() and "labelling" in row.inner_text()
        tab.get_by_role("textbox", name="People").fill("ann@example.com\nbob@example.com: 2")
        tab.get_by_role("button", name="Look who gets what").click()
        tab.get_by_role("heading", name="Who would get what").wait_for()
        assert [cell.inner_text() for cell in tab.locator("tbody td:nth-child(2)").all()] == ["3", "6"]
        check_accessible(tab)
        tab.get_by_role("button", name="Hand out").click()
        tab.get_by_text("2 work packages are handed out, with 9 tasks.").wait_for()
        tab.locator("#packages tbody tr").nth(1).wait_for()
        check_accessible(tab)
        check_fits_a_phone(tab)
        picture(tab, "dashboard-team", folder)

        questions: list[str] = []
        tab.on("dialog", lambda asked: (questions.append(asked.message), asked.accept()))
        tab.get_by_role("button", name="Undo the last handing out").click()
        tab.get_by_text("2 work packages are taken back").wait_for()
        assert len(questions) == 1 and "Annotations stay" in questions[0]
        assert open_studio(stack.settings).views.list(project=project) == []

        tab.get_by_role("button", name="Sign out").click()
        tab.get_by_text("You are signed out.").wait_for()
        tab.goto(f"{locked}/tator/team")
        assert "/tator/sign-in" in tab.url


def test_the_strip_leads_to_the_dashboard(page: Any, stack: DemoStack, tmp_path: Path) -> None:
    tasks = httpx.get(
        f"{stack.studio.url}/api/tasks",
        params={"project": stack.project, "page_size": 1},
        headers={"Authorization": f"Token {stack.studio.account.token}"},
    ).json()["tasks"]
    page.goto(f"{stack.studio.url}/projects/{stack.project}/data?task={tasks[0]['id']}")
    strip = page.frame_locator("iframe[src*='/strip']")
    link = strip.get_by_role("link", name="open its dashboard")
    link.wait_for()
    strip.locator("#say").filter(has_text=re.compile(r"\S")).wait_for()
    page.locator("iframe[src*='/strip']").screenshot(path=str(tmp_path / "strip.png"))
    with page.context.expect_page() as opening:
        link.press("Enter")
    tab = opening.value
    tab.wait_for_url(f"**/tator/now?project={stack.project}")
    assert tab.evaluate("() => window.opener") is None
    tab.close()
