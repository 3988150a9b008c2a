"""The Now page in a real browser, over a real engine."""

from __future__ import annotations

from typing import Any

import pytest

from demo.stack import DemoStack

from .dashboard import check_accessible, check_fits_a_phone, opened

pytestmark = [pytest.mark.browser, pytest.mark.studio, pytest.mark.timeout(400)]


def test_it_shows_the_lanes(page: Any, stack: DemoStack) -> None:
    with opened(page, f"{stack.settings.backend_url}/tator/now") as tab:
        tab.wait_for_selector("#lanes table")
        check_accessible(tab)
        check_fits_a_phone(tab)
