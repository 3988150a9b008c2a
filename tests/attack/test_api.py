"""The control API against its own description: whatever is sent, what comes back is as described, and no 500."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from tator_ml.jobs import ping_worker
from tests.dashboard.conftest import Site

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]


def test_answers_are_as_described(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    no_worker = functools.partial(ping_worker, seconds=0.2)
    monkeypatch.setattr("tator_ml.web.control.ping_worker", no_worker)
    api: Any = schemathesis.openapi.from_wsgi("/tator/api/openapi.json", site.client.application)
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) >= 10
    for operation in operations:
        written = json.dumps(operation.definition.raw)
        examples = 15 if operation.body or '"parameters"' in written else 1
        typed = operation.body or '"type": "integer"' in written  # where any text fits, nothing can be wrong
        for mode in GenerationMode if typed else [GenerationMode.POSITIVE]:

            @seed(3)
            @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy(generation_mode=mode))
            def answers_as_described(case: Any) -> None:
                case.call_and_validate(checks=CHECKS)

            answers_as_described()
