"""What ``connect`` makes of answers that are none, without a Label Studio."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from tator_sdk.connect import check_backend, explained
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

HEALTH = (
    "Can't connect to ML backend {url}, health check failed. Make sure it is up and your firewall is properly "
    "configured. Additional info: connection refused"
)


def refused(status: int, body: object) -> Exception:
    return cast(Exception, SimpleNamespace(status_code=status, body=body))


@pytest.mark.parametrize("url", ["http://localhost:9090", "http://local.example:9090", "http://blocks.local:9090"])
def test_a_backend_that_label_studio_cannot_reach_needs_another_address(url: str) -> None:
    body = {"non_field_errors": [HEALTH.format(url=url)]}
    said = str(explained(refused(400, body), url))
    assert "--backend" in said and url in said and "ML_BLOCK_LOCAL_IP" not in said


@pytest.mark.parametrize("status", [400, 403])
def test_addresses_of_its_own_network_need_a_setting(status: int) -> None:
    body = {"detail": "URL resolves to a reserved network address (block: 10.0.0.0/8)"}
    assert "ML_BLOCK_LOCAL_IP" in str(explained(refused(status, body), "http://10.0.0.3:9090"))


@pytest.mark.parametrize(
    "error",
    [
        refused(403, {"detail": "You do not have permission to perform this action."}),
        refused(400, {"url": ["Can't resolve hostname tator.local"]}),
        refused(500, {"detail": "reserved"}),
    ],
)
def test_what_has_another_reason_stays_what_it_is(error: Exception) -> None:
    assert explained(error, "http://tator.local:9090") is error


@pytest.mark.parametrize("answer", [{"text": "<html>"}, {"json": ["x"]}, {"json": {"model_class": "Other"}}])
def test_what_answers_and_is_not_tator(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    monkeypatch.setattr(httpx, "get", lambda *_, **__: httpx.Response(200, **answer))
    with pytest.raises(TatorError, match="is not Tator"):
        check_backend(Settings(), "http://127.0.0.1:9090")
