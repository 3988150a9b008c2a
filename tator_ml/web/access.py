"""Who asks, and what they may see: projects of Label Studio decide."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from flask import g
from werkzeug.exceptions import Forbidden


@dataclass(frozen=True)
class Visitor:
    """Somebody who looks at the dashboard.

    Attributes:
        name: for people: an e-mail address, ``administrator``, or ``this machine`` where no password is set.
        projects: of Label Studio that they may see; None for all.
        signed_in: by the form, so that they can sign out.
    """

    name: str
    projects: frozenset[int] | None = None
    signed_in: bool = False

    @property
    def administrator(self) -> bool:
        """Whether they may see and change everything."""
        return self.projects is None

    @property
    def sight(self) -> str:
        """What they may see, the same for all who may see the same: ``all``, or projects as ``1,4``."""
        return "all" if self.projects is None else ",".join(map(str, sorted(self.projects)))

    def may_see(self, project: int | None) -> bool:
        """Whether a project's models, jobs and data are theirs to see; what belongs to none is the administrator's."""
        return self.projects is None or project in self.projects

    def require(self, project: int | None) -> None:
        """Let nobody pass who may not see a project.

        Raises:
            Forbidden: it is not theirs.
        """
        if not self.may_see(project):
            what = "This is not part of a project" if project is None else f"Project {project} is not one"
            raise Forbidden(f"{what} that your Label Studio token may see; an administrator can sign in instead.")

    def require_administrator(self) -> None:
        """Let nobody else pass.

        Raises:
            Forbidden: they are no administrator.
        """
        if not self.administrator:
            raise Forbidden("Only an administrator may do this; sign in with Tator's user name and password.")


def visitor() -> Visitor:
    """Whoever sent the request at hand."""
    return cast(Visitor, g.visitor)


def still_welcome() -> bool:
    """Whether whoever sent the request at hand is still signed in, and may still see what they saw then."""
    ask: Callable[[], bool] | None = g.get("welcome")
    return ask is None or ask()


def on_dashboard(path: str) -> bool:
    """Whether an address is one of the pages for people, and not of the API for programs beside them."""
    return path == "/tator" or (path.startswith("/tator/") and not f"{path}/".startswith("/tator/api/"))


def secret_of(home: Path) -> bytes:
    """The installation's own secret, which signs sessions and forms; made at the first start."""
    path = home / "secret"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_hex(32).encode())
    except FileExistsError:
        pass
    return path.read_bytes()
