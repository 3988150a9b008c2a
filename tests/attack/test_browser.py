"""Markup in a real browser: on the dashboard, in Label Studio beside the strip, and from a page of another site."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from demo.stack import DemoStack
from label_config.build import build
from tator_ml.jobs import cancel, connect_redis
from tator_ml.jobs.fence import Fence
from tator_ml.launch import launch
from tator_ml.projects import Projects
from tator_sdk.connect import strip_url
from tator_sdk.requests import Prelabel
from tator_sdk.studio import open_studio
from tests.browser.editor import Editor
from tests.jobs.conftest import until

from .hostile import MARKUP

pytestmark = [pytest.mark.attack, pytest.mark.browser, pytest.mark.studio, pytest.mark.timeout(400)]


def hit(tab: Any) -> bool:
    """Whether any of the markup was executed, in the page or in a frame of it."""
    tab.wait_for_timeout(700)
    return any(frame.evaluate("() => window.hit === 1") for frame in tab.frames)


def test_nothing_is_executed_on_the_dashboard(page: Any, stack: DemoStack) -> None:
    settings = stack.settings
    (job,) = launch(settings, Prelabel(project=stack.project, prompt=MARKUP, dry_run=True))
    cancel(settings, job.id)
    with connect_redis(settings) as connection:
        Fence(connection, job.id, 1).log([MARKUP])
        connection.hset(f"tator:job:{job.id}", mapping={"error": MARKUP, "title": MARKUP, "what": MARKUP})
        connection.rpush(f"tator:job:{job.id}:log", MARKUP)
        connection.hset(f"tator:job:{job.id}", "log_end", connection.llen(f"tator:job:{job.id}:log"))
    tab = page.context.browser.new_page()
    try:
        for where in (f"jobs/{job.id}", "jobs", "now", f"jobs/{job.id}/again", f"data/job/{job.id}"):
            tab.goto(f"{settings.backend_url}/tator/{where}")
            assert "<img src=x" in tab.inner_text("body") or where in {"now", f"jobs/{job.id}/again"}, where
            assert not hit(tab), where
        # were it ever to get through, the policy would still hold it back
        tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hit=1\">')")
        tab.evaluate(
            "() => document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hit=1'}))"
        )
        assert not hit(tab), "the content security policy"
    finally:
        tab.close()


def test_nothing_is_executed_in_the_labelling_screen(page: Any, stack: DemoStack) -> None:
    """Label Studio renders the strip's Markdown; labels, words and errors with markup stand beside it and in it."""
    settings = stack.settings
    studio = open_studio(settings)
    before = studio.projects.get(stack.project).label_config
    labels = [MARKUP, "Star"]
    config = build("all", labels, strip_url(settings, settings.backend_url, stack.project), project=stack.project)
    Projects(settings.home / "projects").choose(stack.project, words=None)
    try:
        studio.projects.update(stack.project, label_config=config)
        task = next(iter(studio.tasks.list(project=stack.project)))
        Editor(page, stack, task.id)
        strip = next(frame for frame in page.frames if "/strip" in frame.url)
        prompt = {"id": "a", "from_name": MARKUP, "to_name": "image", "type": "keypointlabels", "value": {}}
        body = {"tasks": [{"id": task.id, "data": task.data}], "project": f"{stack.project}.1", "label_config": config,
                "params": {"context": {"result": [prompt]}}}  # fmt: skip
        httpx.post(f"{settings.backend_url}/predict", json=body, timeout=30)
        until(lambda: "<img src=x" in strip.inner_text("#say"))
        assert not hit(page)
    finally:
        studio.projects.update(stack.project, label_config=before)
        page.goto("about:blank")  # the project that stands open there still has these labels


@pytest.fixture
def other_site(stack: DemoStack) -> Iterator[str]:
    """A page that an annotator visits: it sends whatever a page may send, to the backend on this machine."""
    backend = stack.settings.backend_url
    script = f"""
      const always = {{mode: "no-cors", credentials: "include"}};
      const send = (path, how) => fetch("{backend}" + path, {{...always, ...how}}).catch(() => 0);
      const event = {{action: "START_TRAINING", project: {{id: {stack.project}}}}};
      Promise.all([
        send("/webhook", {{method: "POST", body: JSON.stringify(event)}}),
        send("/predict", {{method: "POST", body: '{{"tasks": []}}'}}),
        send("/strip/choices?project={stack.project}", {{method: "POST", body: '{{"refine": false}}'}}),
        send("/tator/now/budget", {{method: "POST", body: new URLSearchParams({{budget: "1"}})}}),
        send("/tator/api/budget", {{method: "PUT", body: '{{"budget_bytes": 0}}'}}),
      ]).then(() => {{ document.title = "sent"; }});
    """
    text = f"<!doctype html><title>a site</title><iframe src='{backend}/tator/now'></iframe><script>{script}</script>"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def state(api: httpx.Client, project: int) -> list[object]:
    """What the site's requests would change."""
    jobs = [one["id"] for one in api.get("/tator/api/jobs").json()["jobs"]]
    return [api.get("/tator/api/status").json()["budget_bytes"], api.get(f"/tator/api/projects/{project}").json(), jobs]


def test_a_site_that_an_annotator_visits_changes_nothing(page: Any, stack: DemoStack, other_site: str) -> None:
    settings = stack.settings
    api = httpx.Client(base_url=settings.backend_url)
    before = state(api, stack.project)
    tab = page.context.browser.new_page()
    answers: dict[str, int] = {}
    tab.on("response", lambda answer: answers.update({f"{answer.request.method} {answer.url}": answer.status}))
    try:
        tab.goto(other_site)
        tab.wait_for_function("() => document.title === 'sent'")
        sent = {one.split(settings.backend_url)[1]: status for one, status in answers.items() if one.startswith("POST")}
        assert len(sent) >= 4 and set(sent.values()) <= {400, 401, 403}, sent
        framed = next(frame for frame in tab.frames if frame != tab.main_frame)
        assert "In flight" not in framed.content(), "no page of ours stands in another site's frame"
    finally:
        tab.close()
    after = state(api, stack.project)
    api.close()
    assert after == before
