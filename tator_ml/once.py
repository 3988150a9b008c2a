"""Work that many ask for at the same time, and one does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """Work that is done by whoever asks first; everybody else waits for its result, or its error."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work: Callable[[], T] | None = work
        self._lock = threading.Lock()
        self._result: list[T] = []
        self._error: BaseException | None = None

    @property
    def failed(self) -> bool:
        """Whether it was tried and raised."""
        return self._error is not None

    def __call__(self) -> T:
        """The result, made now if need be."""
        with self._lock:
            if self._error is not None:
                raise self._error
            if self._work is not None:
                try:
                    self._result.append(self._work())
                except BaseException as error:
                    self._error = error
                    raise
                self._work = None
            return self._result[0]
