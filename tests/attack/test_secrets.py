"""A running Tator with known secrets, through what works and what fails: nowhere do they stand but where they must."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tator_ml.jobs import connect_redis
from tator_ml.launch import launch
from tator_ml.running.processes import free_port
from tator_sdk.requests import HeadTraining, Relabel
from tator_sdk.settings import Settings
from tests.jobs.conftest import until

ROOT = Path(__file__).parents[2]
PASSWORD, TOKEN, KEY = "Sesame-password-71", "legacy-token-0f9d8c7b6a", "engine-key-5e4d3c2b1a"
TYPED, WRONG = "typed-token-998877665544", "guess-9911"
SECRETS = (PASSWORD, TOKEN, KEY, TYPED, WRONG)

pytestmark = [pytest.mark.attack, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, list[subprocess.Popen[bytes]]]]:
    """`tator up` with every secret there is, beside a Label Studio that answers nothing of use."""
    home = tmp_path_factory.mktemp("s") / "home"
    port, studio = free_port(19400), free_port(19500)
    values = {
        "TATOR_HOME": str(home), "TATOR_PORT": str(port), "TATOR_PASSWORD": PASSWORD, "TATOR_ENGINE_KEY": KEY,
        "LABEL_STUDIO_API_KEY": TOKEN, "LABEL_STUDIO_URL": f"http://127.0.0.1:{studio}", "TATOR_LOG_LEVEL": "debug",
        "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1", "TATOR_OFFLINE": "true",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patched:
        for name, value in values.items():
            patched.setenv(name, value)
        settings = Settings()
        log = tmp_path_factory.mktemp("log") / "up.log"
        with log.open("wb") as stream:
            up = subprocess.Popen(
                [sys.executable, "-m", "tator_sdk", "up"],
                env=os.environ.copy(),
                stdout=stream,
                stderr=stream,
                cwd=log.parent,
            )
        try:
            until(lambda: "Tator is up" in log.read_text() or up.poll() is not None, 240)
            assert up.poll() is None, log.read_text()
            yield settings, [up]
            up.terminate()
            up.wait(30)
            assert_clean(log.read_text(), "what tator up printed")
        finally:
            with contextlib.suppress(ProcessLookupError):
                up.kill()
            up.wait(10)


def assert_clean(text: str, where: str) -> None:
    for secret in SECRETS:
        assert secret not in text, f"{where}: …{text[max(0, text.index(secret) - 120) : text.index(secret) + 20]}…"


def everything_is_tried(settings: Settings) -> list[httpx.Response]:
    """Pages, clicks, jobs and commands, right and wrong."""
    answers = []
    with httpx.Client(base_url=settings.backend_url, timeout=60) as client:
        basic = httpx.BasicAuth("tator", PASSWORD)
        body: dict[str, Any] = json.loads((ROOT / "tests/payloads/predict_interactive_keypoint_ui.json").read_text())[
            "body"
        ]
        body["params"] |= {"login": "tator", "password": PASSWORD}
        for where in ("/health", "/versions", "/metrics", "/tator/now", "/tator/settings", "/tator/jobs", "/tator/team",
                      "/tator/settings/env-example", "/tator/api/check", "/tator/api/status"):  # fmt: skip
            answers.append(client.get(where, auth=basic, follow_redirects=True))
            client.get(where, auth=httpx.BasicAuth("tator", WRONG))
        for address in (None, "/x.png", f"http://u:{WRONG}@127.0.0.1:1/x.png", "s3://a/b"):
            body["tasks"][0]["data"] = {"image": address}
            answers.append(client.post("/predict", json=body, auth=basic))
        setup = {"project": "1.1", "schema": "<View/>", "hostname": "h", "access_token": TOKEN, "extra_params": None}
        answers.append(client.post("/setup", json=setup, auth=basic))
        answers.append(client.post("/setup", content=f"{{{TOKEN}", auth=basic))
        payload = json.loads((ROOT / "tests/payloads/webhook_ANNOTATION_CREATED.json").read_text())["body"]
        answers.append(client.post("/webhook", json=payload, auth=basic))
        page = client.get("/tator/sign-in").text
        token = page.split('name="csrf_token" value="')[1].split('"')[0]
        for data in ({"token": TYPED}, {"as": "administrator", "username": "tator", "password": WRONG},
                     {"as": "administrator", "username": PASSWORD, "password": WRONG}):  # fmt: skip
            answers.append(client.post("/tator/sign-in", data={"csrf_token": token, **data}))
    for request in (HeadTraining(project=1), Relabel(project=1), HeadTraining(images_path=settings.home / "none")):
        (job, *_) = launch(settings, request)
        with httpx.Client(base_url=settings.backend_url, auth=basic, timeout=60) as client:
            about = f"/tator/api/jobs/{job.id}"
            until(lambda ask=client.get, about=about: ask(about).json()["ended"], 180)
            answers += [client.get(f"/tator/jobs/{job.id}"), client.get(f"/tator/jobs/{job.id}/log.txt")]
            answers.append(client.get(f"/tator/api/jobs/{job.id}"))
    return answers


def test_secrets_stay_where_they_are(running: tuple[Settings, list[subprocess.Popen[bytes]]]) -> None:
    settings, (up,) = running
    for answer in everything_is_tried(settings):
        assert_clean(answer.text + str(answer.headers.raw), str(answer.request.url))
    for verb in (["settings"], ["doctor"], ["jobs", "list"], ["connect", "--project", "1"], ["warm", "--project", "1"]):
        done = subprocess.run(
            [sys.executable, "-m", "tator_sdk", *verb], capture_output=True, text=True, timeout=100, check=False
        )
        assert_clean(done.stdout + done.stderr, f"tator {' '.join(verb)}")
    worker = next(one for one in psutil.Process(up.pid).children(recursive=True) if "worker" in one.cmdline())
    worker.kill()
    time.sleep(3)
    for process in [psutil.Process(up.pid), *psutil.Process(up.pid).children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            assert_clean(" ".join(process.cmdline()), "a process's arguments, which every user of the machine can read")
    with connect_redis(settings) as connection:
        assert_clean(str(dump(connection)), "Redis")
    for path in settings.home.rglob("*"):
        if path.is_file():
            assert_clean(path.read_bytes().decode("latin-1"), str(path.relative_to(settings.home)))
    logs = "".join(path.read_text() for path in (settings.home / "logs").glob("*.log"))
    assert "setup of project 1.1" in logs, "there is something to be found in them"


def dump(connection: Any) -> list[object]:
    """All that Redis holds, whatever its kind."""
    reads = {
        b"string": connection.get, b"hash": connection.hgetall, b"set": connection.smembers,
        b"list": lambda key: connection.lrange(key, 0, -1), b"zset": lambda key: connection.zrange(key, 0, -1),
    }  # fmt: skip
    return [(key, reads[kind](key)) for key in connection.keys("*") if (kind := connection.type(key)) in reads]
