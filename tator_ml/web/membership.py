"""What a person's own Label Studio token may see."""

from __future__ import annotations

import re
from typing import Any

from tator_ml.web.access import Visitor
from tator_sdk.auth import TokenRefused
from tator_sdk.settings import Settings
from tator_sdk.studio import sentences

ANSWER_SECONDS = 10.0
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{6,4096}")


def member(settings: Settings, token: str) -> Visitor:
    """Ask Label Studio whose a token is, and which projects it may see.

    Args:
        settings: with Label Studio's address.
        token: of either kind.

    Raises:
        TokenRefused: it does not look like one.
        StudioError: Label Studio refuses it, or does not answer.
    """
    if not _TOKEN.fullmatch(token):
        raise TokenRefused("This does not look like a Label Studio token.")
    from label_studio_sdk import LabelStudio  # its import takes a second

    url = settings.label_studio_url
    with sentences(url):
        studio: Any = LabelStudio(base_url=url, api_key=token, timeout=ANSWER_SECONDS)
        who = studio.users.whoami()
        projects = frozenset(int(one.id or 0) for one in studio.projects.list(include="id", page_size=500))
    return Visitor(str(who.email or who.username or who.id), projects, signed_in=True)
