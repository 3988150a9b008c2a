"""What a web process keeps going behind the answers, and ends at its end."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import TypeAdapter

from tator_ml.engine.client import Answers
from tator_ml.engine.messages import Status
from tator_ml.services import EngineWatch, build_services
from tator_sdk.settings import Settings


def test_an_odd_answer_does_not_end_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    class Odd:
        def status(self) -> Any:
            return TypeAdapter(Status).validate_python({"ready": "who knows"})

    watch = EngineWatch(cast(Answers, Odd()))
    watch.look()
    assert not watch.status.ready and "cannot be used" in (watch.status.error or "") and "Traceback" in caplog.text


def test_closing_ends_everything_that_was_built(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    services = build_services(Settings(home=tmp_path))
    services.tidier.settle()
    services.quality.settle()
    assert set(threading.enumerate()) - before
    services.close()
    services.close()  # twice is no harm
    deadline = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not set(threading.enumerate()) - before
