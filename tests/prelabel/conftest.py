"""The engine in this process that finds bright rectangles is that of the tweak tests."""

from typing import Any

from tests.tweak.conftest import settings, toy  # noqa: F401


class Killed(BaseException):
    """Ends an attempt of a job as a kill would: nothing catches it."""


class KilledOnce:
    """Raises at the first count that is ``at``, and never after."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._struck = False

    def __call__(self, count: int) -> None:
        if not self._struck and count == self._at:
            self._struck = True
            raise Killed


class Lent:
    """A client of an engine in this process: closing it leaves the engine as it is."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def close(self) -> None:
        pass
