"""Further people of a private Label Studio, each with both kinds of token."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from demo.errors import LabelStudioError
from demo.label_studio import LabelStudio

PASSWORD = "correct horse battery"  # noqa: S105 - of accounts that live as long as a private Label Studio does


@dataclass(frozen=True)
class Person:
    """An account.

    Attributes:
        email: that it signs in with.
        web: has its session, as a browser has.
        personal: its personal access token.
        legacy: its legacy token.
    """

    email: str
    web: httpx.Client
    personal: str
    legacy: str

    def revoke(self) -> None:
        """Take the personal access token back."""
        self.web.post("/api/token/blacklist/", json={"refresh": self.personal}).raise_for_status()


def join(studio: LabelStudio, email: str) -> Person:
    """Sign somebody up by the invitation that an owner sends.

    Raises:
        LabelStudioError: the form was refused.
    """
    owner = {"Authorization": f"Token {studio.account.token}"}
    invitation = httpx.get(f"{studio.url}/api/invite", headers=owner, trust_env=False).json()["invite_url"]
    web = httpx.Client(base_url=studio.url, timeout=30.0, trust_env=False)
    web.get(invitation).raise_for_status()
    form = {"email": email, "password": PASSWORD, "csrfmiddlewaretoken": web.cookies["csrftoken"]}
    answer = web.post(invitation, data=form, headers={"Referer": studio.url})
    if not answer.is_redirect:
        raise LabelStudioError(f"Label Studio did not let {email} sign up: {answer.text[:200]}")
    web.headers.update({"X-CSRFToken": web.cookies["csrftoken"], "Referer": studio.url})
    personal = web.post("/api/token/").json()["token"]
    return Person(email, web, personal, web.get("/api/current-user/token").json()["token"])
