"""Sessions: whose they are, how long they last, and what happens when Label Studio changes its mind."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tator_ml.web.access import Visitor
from tator_ml.web.sessions import FRESH_SECONDS, SESSION_SECONDS, UNSURE_SECONDS, Sessions
from tator_sdk.auth import TokenRefused
from tator_sdk.errors import TatorError
from tator_sdk.studio import StudioError


@dataclass
class Studio:
    """What Label Studio would say, and the time."""

    projects: set[int] = field(default_factory=lambda: {1, 2})
    fails: TatorError | None = None
    asked: int = 0
    now: float = 1000.0

    def look(self, token: str) -> Visitor:
        self.asked += 1
        if self.fails is not None:
            raise self.fails
        return Visitor(f"{token}@example.com", frozenset(self.projects), signed_in=True)

    def sessions(self) -> Sessions:
        return Sessions(self.look, lambda: self.now)


def test_a_project_taken_away_is_gone_within_minutes() -> None:
    studio = Studio()
    sessions = studio.sessions()
    name = sessions.begin("ann")
    studio.projects.remove(2)
    studio.now += FRESH_SECONDS - 1
    assert sessions.visitor(name) == Visitor("ann@example.com", frozenset({1, 2}), True) and studio.asked == 1
    studio.now += 1
    assert sessions.visitor(name) == Visitor("ann@example.com", frozenset({1}), True) and studio.asked == 2


@pytest.mark.parametrize("refusal", [TokenRefused("revoked"), StudioError("401", status=401)])
def test_a_revoked_token_is_signed_out(refusal: TatorError) -> None:
    studio = Studio()
    sessions = studio.sessions()
    name = sessions.begin("ann")
    studio.fails = refusal
    studio.now += FRESH_SECONDS
    assert sessions.visitor(name) is None
    studio.fails = None
    assert sessions.visitor(name) is None, "what has ended stays ended"


def test_a_label_studio_that_does_not_answer_is_trusted_for_a_while() -> None:
    studio = Studio()
    sessions = studio.sessions()
    name = sessions.begin("ann")
    studio.fails = StudioError("not reached", passing=True)
    studio.now += FRESH_SECONDS
    assert sessions.visitor(name) is not None and sessions.visitor(name) is not None
    assert studio.asked == 2, "it is not asked at each request"
    studio.now += UNSURE_SECONDS - FRESH_SECONDS
    assert sessions.visitor(name) is None


def test_sessions_end_by_themselves_and_at_sign_out() -> None:
    studio = Studio()
    sessions = studio.sessions()
    administrator, ann = sessions.begin(None), sessions.begin("ann")
    who = sessions.visitor(administrator)
    assert who is not None and who.administrator
    sessions.end(ann)
    assert sessions.visitor(ann) is None
    studio.now += SESSION_SECONDS
    assert sessions.visitor(administrator) is None
    assert sessions.visitor(None) is None and sessions.visitor("guessed") is None


def test_tokens_do_not_show() -> None:
    sessions = Studio().sessions()
    sessions.begin("hush")
    assert "hush'" not in repr(vars(sessions)) and "SecretStr" in repr(vars(sessions))
