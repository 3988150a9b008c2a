"""The settings page in a real browser."""

from __future__ import annotations

import os
from typing import Any

import pytest

from demo.stack import DemoStack

from .dashboard import check_accessible, check_fits_a_phone, opened, picture

PICTURES = os.environ.get("TATOR_PICTURES") == "1"

pytestmark = [pytest.mark.browser, pytest.mark.studio, pytest.mark.timeout(400)]


def test_every_setting_is_there_and_no_secret(page: Any, stack: DemoStack) -> None:
    token = stack.settings.label_studio_api_key
    assert token is not None
    with opened(page, f"{stack.settings.backend_url}/tator/settings") as tab:
        tab.wait_for_selector(".settings table")
        assert "TATOR_WARM_BYTES" in tab.content() and token.get_secret_value() not in tab.content()
        check_accessible(tab)
        check_fits_a_phone(tab)
        if PICTURES:
            picture(tab, "dashboard-settings")
