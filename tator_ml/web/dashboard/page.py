"""What all pages share: the parts of the backend that they show, and their places in the menu."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from flask import request

from tator_ml.services import EngineWatch, Services
from tator_ml.web.access import Visitor, visitor
from tator_ml.web.dashboard.live import Live
from tator_ml.web.dashboard.titles import Titles
from tator_sdk.settings import Settings


@dataclass(frozen=True)
class Page:
    """A page's place in the menu.

    Attributes:
        name: of its endpoint, and of its address below ``/tator/``.
        title: in the menu, and of its window.
        administrators: whether it is only theirs.
    """

    name: str
    title: str
    administrators: bool = False


@dataclass(frozen=True)
class Dashboard:
    """What pages are made from.

    Attributes:
        settings: of this installation.
        services: of the web process.
        watch: the engine's status, asked every second.
        live: streams of what changes by itself.
    """

    settings: Settings
    services: Services
    watch: EngineWatch
    live: Live = field(default_factory=Live)

    @cached_property
    def titles(self) -> Titles:
        """What Label Studio's projects are called."""
        return Titles(self.settings)

    def chosen_project(self) -> int | None:
        """The project that the address asks for (``?project=3``), if the visitor may see it; None without one.

        Raises:
            Forbidden: it is not theirs.
        """
        given = request.args.get("project", "")
        if not (given.isascii() and given.isdigit()):
            return None
        visitor().require(int(given))
        return int(given)


def seen_by(who: Visitor, projects: Iterable[int | None]) -> list[int]:
    """Of some projects, those that a visitor may see, in order."""
    return sorted({one for one in projects if one is not None and who.may_see(one)})
