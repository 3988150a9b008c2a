"""The one request that is on its way: noted on disk, so that whoever comes next knows of it and waits for it.

Label Studio goes on with a request whose caller was killed or cut off. Sending the same again at once would make
doubles; never sending it again would lose it. So the next one looks for what the request was to make until it is
there, or until the request had several times as long as it takes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from tator_sdk.errors import TatorError
from tator_sdk.files import write_durably
from tator_sdk.studio import StudioError

# A request is written within 1 s after each MiB has arrived, on a machine of two cores.
SETTLE_SECONDS, SETTLE_SECONDS_PER_MIB = 5.0, 2.5
POLL_SECONDS = 0.5


class InFlight:
    """A note on disk of the request that is on its way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, mark: str, nbytes: int) -> None:
        """Note a request before it is sent.

        Args:
            mark: what to look for, to see whether it came through.
            nbytes: size of the request.
        """
        seconds = SETTLE_SECONDS + SETTLE_SECONDS_PER_MIB * nbytes / 2**20
        write_durably(self.path, json.dumps({"seconds": seconds, "mark": mark}).encode())

    def end(self) -> None:
        """It is known what came of the request."""
        self.path.unlink(missing_ok=True)

    def settle(self, came_through: Callable[[str], bool]) -> bool:
        """Wait until a request whose fate is unknown has come through, or had time enough to.

        Args:
            came_through: whether what a mark stands for is there; may raise a passing `StudioError`.

        Returns:
            Whether it is there; False also where there was no such request.

        Raises:
            StudioError: Label Studio refuses.
            TatorError: the note cannot be read.
        """
        try:
            note = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return False
        except ValueError as error:
            raise TatorError(f"{self.path} is damaged; delete it once nothing was sent for a minute.") from error
        there = False
        until = time.monotonic() + note["seconds"]  # when it was sent, no clock could say that is put right meanwhile
        while True:
            left = until - time.monotonic()
            try:
                there = came_through(note["mark"])
            except StudioError as error:
                if not error.passing:
                    raise
            if there or left <= 0:
                break
            time.sleep(min(POLL_SECONDS, left))
        self.end()
        return there
