"""Work that runs behind everything else on the same cores."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

AUTOGROUP = Path("/proc/self/autogroup")


def run_behind_others(niceness: int) -> None:
    """Give this process and those that it will start a lower priority: 19 is the lowest, 0 changes nothing.

    Linux shares its cores among sessions first, where autogroups are on (they are by default): a process's niceness
    counts within its session only. So a session that this process leads is made nice as a whole; a terminal's, which
    holds other programs too, is left alone.
    """
    if niceness == 0 or not hasattr(os, "nice"):
        return
    os.nice(niceness)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):  # no autogroups here
            AUTOGROUP.write_text(str(niceness))
