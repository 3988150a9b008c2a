"""What a web process keeps going behind the answers, and ends at its end."""

from __future__ import annotations

from typing import Any, cast

import pytest
from pydantic import TypeAdapter

from tator_ml.engine.client import Answers
from tator_ml.engine.messages import Status
from tator_ml.services import EngineWatch


def test_an_odd_answer_does_not_end_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    class Odd:
        def status(self) -> Any:
            return TypeAdapter(Status).validate_python({"ready": "who knows"})

    watch = EngineWatch(cast(Answers, Odd()))
    watch.look()
    assert not watch.status.ready and "cannot be used" in (watch.status.error or "") and "Traceback" in caplog.text
