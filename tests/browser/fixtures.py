"""One browser and one logged-in page for all browser tests; each test opens a task of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.stack import DemoStack

CHROMIUM = Path("/usr/bin/chromium")
STILL = """
new MutationObserver((_, observer) => {
    if (!document.head) return;
    observer.disconnect();
    const style = document.createElement("style");
    style.textContent = "*, *::before, *::after { transition-duration: 1ms !important;"
        + "animation-duration: 1ms !important; animation-iteration-count: 1 !important; }";
    document.head.append(style);
}).observe(document, { childList: true, subtree: true });
"""
"""Nothing fades in or turns: frames are painted without a GPU, the larger part of what these tests compute."""
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One browser for all: playwright starts once in a process."""
    if not CHROMIUM.exists():
        pytest.skip("Debian's chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def page(browser: Any, stack: DemoStack) -> Any:
    """A browser page of somebody who has logged in."""
    opened = browser.new_page(viewport={"width": 1440, "height": 1200})
    opened.add_init_script(STILL)
    opened.set_default_timeout(60_000)
    opened.goto(f"{stack.studio.url}/user/login/")
    opened.fill("input[name=email]", stack.studio.account.username)
    opened.fill("input[name=password]", stack.studio.account.password)
    opened.click("button[type=submit]")
    opened.wait_for_url(lambda address: "/user/login" not in address)
    return opened
