"""Who is signed in to the dashboard: kept in this process's memory only, a random id for each browser."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import SecretStr

from tator_ml.web.access import Visitor
from tator_sdk.auth import TokenRefused
from tator_sdk.errors import TatorError
from tator_sdk.studio import StudioError

SESSION_SECONDS = 12 * 3600.0
FRESH_SECONDS = 180.0
"""After this long Label Studio is asked again what a token may see."""
UNSURE_SECONDS = 900.0
"""How long its last answer holds where it does not answer."""
RETRY_SECONDS = 20.0
MOST_SESSIONS = 4096
MOST_OF_ONE = 32
"""Sessions of one person; a further one ends the oldest, so that nobody fills the places of all."""

ADMINISTRATOR = Visitor("administrator", signed_in=True)


class SessionsFull(TatorError):
    """Too many people are signed in."""


@dataclass
class _Session:
    visitor: Visitor
    begun: float
    asked: float
    """When Label Studio last said what the token may see."""
    tried: float
    """When it was asked last, with or without an answer."""
    token: SecretStr | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Sessions:
    """Sessions by id; tokens of people live here and nowhere else."""

    def __init__(self, look: Callable[[str], Visitor], clock: Callable[[], float] = time.monotonic) -> None:
        """Prepare.

        Args:
            look: asks Label Studio whose a token is and which projects it may see.
            clock: seconds.
        """
        self._look = look
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: dict[str, _Session] = {}

    def begin(self, token: str | None) -> str:
        """Sign somebody in, and return the new session's id.

        Args:
            token: their own of Label Studio; None for the administrator, who has given the password.

        Raises:
            TatorError: Label Studio refuses the token or does not answer, or too many are signed in.
        """
        who = ADMINISTRATOR if token is None else self._look(token)
        now = self._clock()
        begun = _Session(who, now, now, now, None if token is None else SecretStr(token))
        with self._lock:
            self._sessions = {name: one for name, one in self._sessions.items() if now - one.begun < SESSION_SECONDS}
            own = [name for name, one in self._sessions.items() if one.visitor.name == who.name]
            for oldest in own[: max(0, len(own) - MOST_OF_ONE + 1)]:
                del self._sessions[oldest]
            if len(self._sessions) >= MOST_SESSIONS:
                raise SessionsFull("Too many people are signed in; try again later.")
            name = secrets.token_urlsafe(32)
            self._sessions[name] = begun
        return name

    def visitor(self, name: str | None) -> Visitor | None:
        """Whose session an id is; None where it has ended, or its token is not taken any more."""
        with self._lock:
            session = self._sessions.get(name or "")
        if session is None or name is None:
            return None
        now = self._clock()
        if now - session.begun >= SESSION_SECONDS or not self._still_good(session, now):
            self.end(name)
            return None
        return session.visitor

    def end(self, name: str | None) -> None:
        """Sign out."""
        with self._lock:
            self._sessions.pop(name or "", None)

    def _still_good(self, session: _Session, now: float) -> bool:
        """Ask again what the token may see where the answer is old; whoever comes meanwhile takes the old one."""
        if session.token is None or now - session.asked < FRESH_SECONDS:
            return True
        unsure = now - session.asked < UNSURE_SECONDS
        if now - session.tried < min(RETRY_SECONDS, FRESH_SECONDS) or not session.lock.acquire(blocking=False):
            return unsure
        try:
            session.tried = now
            session.visitor = self._look(session.token.get_secret_value())
            session.asked = self._clock()
        except (TokenRefused, StudioError) as error:
            refused = isinstance(error, TokenRefused) or error.status in {401, 403}
            return unsure and not refused
        finally:
            session.lock.release()
        return True
