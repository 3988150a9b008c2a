"""A disk that is full, told apart from all other failures, whichever library met it."""

from __future__ import annotations

import errno
from collections.abc import Iterator

FULL = "The disk is full, so this could not be written; make room, then do it again."
NUMBERS = {errno.ENOSPC, errno.EDQUOT}
SIGNS = ("No space left on device", "database or disk is full", "Disk quota exceeded")


def disk_is_full(error: BaseException) -> bool:
    """Whether a full disk, or a quota that is used up, is behind an error or what led to it."""
    return any(
        (isinstance(one, OSError) and one.errno in NUMBERS) or any(sign in str(one) for sign in SIGNS)
        for one in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__
