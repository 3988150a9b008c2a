"""The dashboard in a real browser: every page is looked at with axe-core, and nothing leaves this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe

from tator_sdk.settings import LOOPBACK_HOSTS

SERIOUS = ("serious", "critical")
PICTURES = Path(__file__).parents[2] / "docs" / "images"


@contextmanager
def opened(page: Any, address: str) -> Iterator[Any]:
    """A page of its own at an address below the dashboard, in the browser of another page.

    Args:
        page: any of the browser.
        address: whole.

    Yields:
        The new page; leaving checks that it asked no other machine and wrote no error to its console.
    """
    context = page.context.browser.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    tab.set_default_timeout(30_000)
    elsewhere: list[str] = []
    errors: list[str] = []

    def asked(request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in {"http", "https", "ws", "wss"} and parts.hostname not in LOOPBACK_HOSTS:
            elsewhere.append(request.url)

    tab.on("request", asked)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    try:
        tab.goto(address)
        yield tab
        assert not elsewhere and not errors, (elsewhere, errors)
    finally:
        context.close()


AXE = Axe()  # reads its script
VIOLATIONS = {"resultTypes": ["violations"]}
COLOURS = {**VIOLATIONS, "runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}


def check_accessible(tab: Any) -> None:
    """Let axe-core look at the page as it stands, in the light and at its colours in the dark.

    Raises:
        AssertionError: it finds a serious violation.
    """
    # in the dark it is the same page in other colours: nothing but them can be wrong there alone
    for scheme, options in (("light", VIOLATIONS), ("dark", COLOURS)):
        tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # else colours are still on their way
        found = AXE.run(tab, options=options).response["violations"]
        serious = [
            (one["id"], one["help"], [node["html"][:200] for node in one["nodes"]][:5])
            for one in found
            if one["impact"] in SERIOUS
        ]
        assert not serious, (tab.url, scheme, serious)
    tab.emulate_media(color_scheme="light")


def check_fits_a_phone(tab: Any) -> None:
    """Let no page be wider than a phone.

    Raises:
        AssertionError: it must be moved sideways to be read.
    """
    before = tab.viewport_size
    tab.set_viewport_size({"width": 390, "height": 800})
    wide = tab.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
    tab.set_viewport_size(before)
    assert wide <= 1, (tab.url, wide)


def picture(tab: Any, name: str, folder: Path | None = None) -> Path:
    """A screenshot for ``docs/images`` where ``folder`` says so; tests give a folder of their own."""
    path = (folder or PICTURES) / f"{name}.png"
    tab.screenshot(path=str(path))
    return path
